/** What went wrong with a request, as the pages tell it. */

import type { Problem } from "./types";

export type Field = { readonly name: string; readonly message: string };

/** The server refused: its sentence, its code, and how to name the request when reporting it. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId: string | null,
    readonly fields: readonly Field[],
    readonly retryAfterSeconds: number | null,
  ) {
    super(message);
  }

  /** Whether the same request may succeed a little later. */
  get isTemporary(): boolean {
    return this.status === 429 || this.status >= 500;
  }

  /** What is wrong with this field of the body, if it is named. */
  field(name: string): string | undefined {
    return this.fields.find((field) => field.name === name)?.message;
  }
}

/** The server was not reached, or the connection broke. */
export class NetworkError extends Error {
  override readonly name = "NetworkError";
}

/** The error that an answer which is not 2xx tells; `text` is its body. */
export function apiError(response: Response, text: string): ApiError {
  const problem = parsed(text);
  const retryAfter = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return new ApiError(
    response.status,
    problem?.code ?? `http_${response.status}`,
    problem?.detail ?? (text.slice(0, 300) || response.statusText || `HTTP ${response.status}`),
    response.headers.get("x-request-id") ?? problem?.request_id ?? null,
    (problem?.errors ?? []).map((error) => ({ name: String(error.loc.at(-1) ?? ""), message: error.msg })),
    Number.isNaN(retryAfter) ? null : retryAfter,
  );
}

function parsed(text: string): Problem | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && typeof (value as Problem).detail === "string" ? (value as Problem) : null;
  } catch {
    return null;
  }
}
