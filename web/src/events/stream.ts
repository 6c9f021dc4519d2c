/** A task's events as they happen: one connection, made again after every cut, from the last event seen. */

import { send } from "../api/client";
import { ApiError, NetworkError } from "../api/problem";
import { EventStreamDecoder } from "./sse";
import type { Event } from "./types";

const CONNECT_MS = 10_000;
const SILENCE_MS = 45_000; // three heartbeats of the server that have not come
const WAIT_LEAST_MS = 500;
const WAIT_MOST_MS = 4_000; // a page goes on within 5 s once the server is back

/** `waiting`: the connection is gone and will be tried again; `ended`: the task's log is at its end. */
export type Connection = "connecting" | "live" | "waiting" | "ended" | "closed";

export type Watched = {
  readonly taskId: number;
  /** The last event that is known. */
  readonly last: () => number;
  /** Whether that is the end of a run, behind which there may be nothing. */
  readonly isAtEnd: () => boolean;
  readonly onEvents: (events: readonly Event[]) => void;
  readonly onConnection: (connection: Connection) => void;
  /** The server refused for good: no such task, or not logged in. */
  readonly onRefused: (error: ApiError) => void;
};

/** Open it, `resume` it whenever there may be more, `close` it. */
export class TaskEvents {
  #watched: Watched;
  #connection: Connection = "closed";
  #abort: AbortController | null = null;
  #wake: (() => void) | null = null;

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  /** Connect, unless it is connected; at once, if it was about to try again later. */
  resume(): void {
    if (this.#wake) return this.#wake();
    if (this.#abort) return;
    const abort = new AbortController();
    this.#abort = abort;
    void this.#run(abort).finally(() => {
      if (this.#abort === abort) this.#abort = null;
    });
  }

  close(): void {
    this.#abort?.abort();
    this.#abort = null;
    this.#wake = null;
    this.#tell("closed");
  }

  #tell(connection: Connection): void {
    if (connection === this.#connection) return;
    this.#connection = connection;
    this.#watched.onConnection(connection);
  }

  async #run(abort: AbortController): Promise<void> {
    for (let failures = 0; !abort.signal.aborted; ) {
      if (failures === 0) this.#tell("connecting");
      try {
        const { hasEnded, hadEvents } = await this.#readOnce(abort.signal);
        if (abort.signal.aborted) return;
        if (hasEnded) return this.#tell("ended");
        failures = hadEvents ? 1 : failures + 1;
        await this.#pause(waitMs(failures, null), abort.signal);
      } catch (error) {
        if (abort.signal.aborted) return;
        if (isFinal(error)) return this.#refuse(error);
        failures += 1;
        await this.#pause(waitMs(failures, error), abort.signal);
      }
    }
  }

  #refuse(error: ApiError): void {
    this.#tell("closed");
    this.#watched.onRefused(error);
  }

  async #pause(milliseconds: number, signal: AbortSignal): Promise<void> {
    this.#tell("waiting");
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = setTimeout(wake, milliseconds);
      this.#wake = wake;
      signal.addEventListener("abort", wake);
    });
    if (!signal.aborted) this.#wake = null;
  }

  /** One connection, from its request to its end. */
  async #readOnce(signal: AbortSignal): Promise<{ hasEnded: boolean; hadEvents: boolean }> {
    let hadEvents = false;
    let latest: Event | undefined;
    for await (const events of readEvents(this.#watched.taskId, { after: this.#watched.last(), signal, onOpen: () => this.#tell("live") })) {
      if (signal.aborted) break;
      hadEvents = true;
      latest = events.at(-1);
      this.#watched.onEvents(events);
    }
    // The server ends the stream behind the end of a run; without an event, if that was known already.
    return { hasEnded: latest ? latest.type === "task.finished" : this.#watched.isAtEnd(), hadEvents };
  }
}

type Reading = { readonly after: number; readonly signal: AbortSignal; readonly onOpen?: () => void };

/** The events after `after`, in groups as they come, until the server ends the stream.
 *
 * @throws {NetworkError} No answer in time, a cut, or silence.
 * @throws {ApiError} The server refused.
 */
export async function* readEvents(taskId: number, { after, signal, onOpen }: Reading): AsyncGenerator<Event[]> {
  const watch = new Deadline(signal);
  try {
    watch.within(CONNECT_MS);
    const response = await send("GET", `/tasks/${taskId}/stream`, {
      headers: { Accept: "text/event-stream", "Last-Event-ID": String(after) },
      signal: watch.signal,
    });
    if (!response.body) throw new NetworkError("the stream has no body");
    onOpen?.();
    yield* decoded(response.body.getReader(), after, watch);
  } finally {
    watch.end();
  }
}

async function* decoded(reader: ReadableStreamDefaultReader<Uint8Array>, after: number, watch: Deadline): AsyncGenerator<Event[]> {
  const decoder = new EventStreamDecoder();
  let last = after;
  while (true) {
    watch.within(SILENCE_MS);
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw new NetworkError("the stream was cut", { cause: error });
    });
    if (done) return;
    const events = decoder.decode(value).map((data) => JSON.parse(data) as Event);
    for (const event of events) {
      if (event.seq !== last + 1) throw new NetworkError(`event ${event.seq} follows ${last}`);
      last = event.seq;
    }
    if (events.length > 0) yield events;
  }
}

/** Aborts when the caller does, or when something takes longer than it may. */
class Deadline {
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly outer: AbortSignal) {
    if (outer.aborted) this.#abort.abort(outer.reason);
    outer.addEventListener("abort", this.#follow);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  #follow = (): void => this.#abort.abort(this.outer.reason);

  /** What happens now may take so long; called again for what follows. */
  within(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort.abort(new DOMException("took too long", "TimeoutError")), milliseconds);
  }

  /** Ends the connection too, if it is still there. */
  end(): void {
    clearTimeout(this.#timer);
    this.outer.removeEventListener("abort", this.#follow);
    this.#abort.abort();
  }
}

function isFinal(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status < 500 && error.status !== 429 && error.status !== 408;
}

/** How long to wait after so many failures in a row; never all watchers at the same moment. */
function waitMs(failures: number, error: unknown): number {
  const longest = Math.min(WAIT_MOST_MS, WAIT_LEAST_MS * 2 ** failures);
  const wait = WAIT_LEAST_MS + Math.random() * (longest - WAIT_LEAST_MS);
  const asked = error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
  return Math.max(wait, asked);
}
