/** A file's content out of the work_dir: what it is, its bytes or a part of them, and the addresses for the browser's own viewers. */

import { send, url } from "../api/client";
import { ApiError } from "../api/problem";

const ANSWER_MS = 60_000;

export type Head = {
  readonly size: number;
  /** Names exactly this content. */
  readonly etag: string;
  readonly modifiedAt: string;
  readonly type: string;
};

/** The file is not there; `HEAD` brings no sentence of the server's. */
export class FileGone extends Error {
  override readonly name = "FileGone";
}

/** Another content is there than the one that was looked at. */
export class FileChanged extends Error {
  override readonly name = "FileChanged";
}

/** @throws {FileGone} */
export async function readHead(taskId: number, path: string, signal: AbortSignal): Promise<Head> {
  const { headers } = await ask("HEAD", taskId, path, { signal });
  return {
    size: Number(headers.get("content-length")),
    etag: headers.get("etag") ?? "",
    modifiedAt: new Date(headers.get("last-modified") ?? 0).toISOString(),
    type: (headers.get("content-type") ?? "").split(";", 1)[0] ?? "",
  };
}

/** Bytes `start` up to, not including, `stop`, of that very content.
 *
 * @throws {FileGone}
 * @throws {FileChanged}
 */
export async function readPart(taskId: number, path: string, part: { head: Head; start: number; stop: number; signal: AbortSignal }): Promise<Uint8Array> {
  const { head, start, stop, signal } = part;
  if (start >= Math.min(stop, head.size)) return new Uint8Array(); // a range of nothing is an error in HTTP
  const headers = { Range: `bytes=${start}-${stop - 1}`, "If-Match": head.etag };
  const response = await ask("GET", taskId, path, { signal, headers });
  return new Uint8Array(await response.arrayBuffer());
}

async function ask(
  method: string,
  taskId: number,
  path: string,
  { signal, headers = {} }: { signal: AbortSignal; headers?: Record<string, string> },
): Promise<Response> {
  try {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
    return await send(method, `/tasks/${taskId}/files/content`, { query: { path }, headers: { ...headers, Accept: "*/*" }, signal: patience });
  } catch (error) {
    if (error instanceof ApiError && error.code === "precondition_failed") throw new FileChanged(path, { cause: error });
    throw error instanceof ApiError && error.status === 404 ? new FileGone(path, { cause: error }) : error;
  }
}

/** For `<a download>`. */
export function downloadUrl(taskId: number, path: string): string {
  return url(`/tasks/${taskId}/files/content`, { path });
}

/** For `<img>`, `<iframe>` and the like; `etag` makes another content another address. */
export function inlineUrl(taskId: number, path: string, etag: string): string {
  return url(`/tasks/${taskId}/files/content`, { path, inline: true, v: etag.replaceAll('"', "") });
}

/** A ZIP of files and folders; of everything if none is named. */
export function zipUrl(taskId: number, paths: readonly string[] = []): string {
  return url(`/tasks/${taskId}/files/download`, { path: paths });
}

/** An address on the task's page that opens the file. */
export function previewLink(path: string): string {
  return `#${new URLSearchParams({ file: path })}`;
}
