/** The one way to the server: same origin, the session in its cookie, JSON in and out, errors as `ApiError` and `NetworkError`. */

import { apiError, NetworkError, type ApiError } from "./problem";

export const API = "/api/v1";
const SECONDS_MOST = 30; // for an answer; transfers of files and streams have no such end

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | null | undefined>>;

export type Options = {
  readonly query?: Query;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** For the whole answer of a `call`. */
  readonly secondsMost?: number;
};

type Listener = (error: unknown) => void;

let language = "en";
let onUnauthenticated: Listener = () => undefined;

/** The language that the server's sentences come in. */
export function speak(chosen: string): void {
  language = chosen;
}

/** Called when the server no longer knows who we are (401). */
export function whenUnauthenticated(listener: Listener): void {
  onUnauthenticated = listener;
}

export function url(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) parameters.append(name, String(one));
  }
  const text = parameters.toString();
  return API + path + (text && `?${text}`);
}

/** An answer that is 2xx or 304.
 *
 * @throws {ApiError} The server refused.
 * @throws {NetworkError} It was not reached in time.
 * @throws {DOMException} `AbortError`: `options.signal` was aborted.
 */
export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers({ ...ownHeaders(), ...options.headers });
  const init: RequestInit = { method, headers, credentials: "same-origin", signal: options.signal ?? null };
  if (options.body !== undefined) {
    headers.set("Content-Type", "application/json");
    init.body = JSON.stringify(options.body);
  }
  const response = await reach(url(path, options.query), init);
  if (response.ok || response.status === 304) return response;
  throw refusal(response, await response.text().catch(() => ""));
}

/** What the server refused with; who waits for the end of the session hears of that. For answers that came without `send`. */
export function refusal(response: Response, text: string): ApiError {
  const error = apiError(response, text);
  if (error.status === 401 && error.code === "not_authenticated") onUnauthenticated(error);
  return error;
}

/** The headers that every request of ours carries. */
export function ownHeaders(): Readonly<Record<string, string>> {
  return { "Accept-Language": language, Accept: "application/json" };
}

async function reach(address: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(address, init);
  } catch (error) {
    if (init.signal?.aborted && init.signal.reason?.name !== "TimeoutError") throw error;
    throw new NetworkError("the server was not reached", { cause: error });
  }
}

/** As `send`, with the answer's JSON. */
export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const patience = AbortSignal.timeout((options.secondsMost ?? SECONDS_MOST) * 1000);
  const signal = options.signal ? AbortSignal.any([options.signal, patience]) : patience;
  const response = await send(method, path, { ...options, signal });
  return (await response.json()) as T;
}
