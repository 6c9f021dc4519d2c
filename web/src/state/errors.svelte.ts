/** Any failure as a sentence for people, and as a toast. */

import { ApiError, NetworkError } from "../api/problem";
import { common } from "../i18n/common";
import { sayer } from "../i18n/index.svelte";
import { toasts } from "./toasts.svelte";

const say = sayer(common);

/** The server's own sentence where there is one. */
export function told(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  if (error instanceof NetworkError) return say("unreachable");
  return error instanceof Error && error.message ? error.message : say("unexpected");
}

/** Show what failed; `retry` is offered where trying again may help. */
export function toastError(error: unknown, retry?: () => void): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  const requestId = error instanceof ApiError ? error.requestId : null;
  const mayHelp = error instanceof NetworkError || (error instanceof ApiError && error.isTemporary);
  toasts.show({
    kind: "bad",
    text: told(error),
    detail: requestId ? `${say("requestId")} ${requestId}` : undefined,
    action: retry && mayHelp ? { label: say("retry"), run: retry } : undefined,
  });
}
