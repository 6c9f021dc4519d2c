/** Send one file into a task's work_dir, and tell how far it has come. `fetch` tells nothing while it sends, so this is XMLHttpRequest. */

import { ownHeaders, refusal, url } from "../api/client";
import { NetworkError } from "../api/problem";
import type { Upload } from "../api/types";

export type Sending = {
  readonly taskId: number;
  /** Where to, relative to the work_dir. */
  readonly path: string;
  readonly content: Blob;
  /** Whether what is there may be replaced; else the server refuses (412). */
  readonly replaces: boolean;
  readonly onprogress: (sentBytes: number) => void;
  readonly signal: AbortSignal;
};

/** What was written.
 *
 * @throws {ApiError} The server refused: the path, the size, or `precondition_failed`: a file is there.
 * @throws {NetworkError} The connection broke, or the file could no longer be read.
 * @throws {DOMException} `AbortError`.
 */
export function upload(sending: Sending): Promise<Upload> {
  const request = new XMLHttpRequest();
  return new Promise<Upload>((resolve, reject) => {
    sending.signal.throwIfAborted();
    sending.signal.addEventListener("abort", () => request.abort(), { once: true });
    request.onabort = () => reject(sending.signal.reason);
    request.onerror = () => reject(new NetworkError("the upload broke"));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText) as Upload);
      else reject(refusal(answerOf(request), request.responseText));
    };
    request.upload.onprogress = (event) => sending.onprogress(event.loaded);
    request.open("PUT", url(`/tasks/${sending.taskId}/files/content`, { path: sending.path }));
    for (const [name, value] of Object.entries(ownHeaders())) request.setRequestHeader(name, value);
    if (!sending.replaces) request.setRequestHeader("If-None-Match", "*");
    request.send(sending.content);
  });
}

/** The answer's head as `fetch` would have given it. */
function answerOf(request: XMLHttpRequest): Response {
  const headers = new Headers();
  for (const name of ["X-Request-ID", "Retry-After"]) {
    const value = request.getResponseHeader(name);
    if (value !== null) headers.set(name, value);
  }
  return new Response(null, { status: request.status, statusText: request.statusText, headers });
}
