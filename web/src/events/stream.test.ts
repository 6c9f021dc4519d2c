import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ApiError } from "../api/problem";
import { recorded } from "./recorded.test-data";
import { readEvents, TaskEvents, type Connection } from "./stream";
import type { Event } from "./types";

const EVENTS = recorded("hello").events;

/** A server that answers each request in turn; what is left of a stream hangs until it is aborted. */
class Server {
  readonly asked: string[] = [];
  #answers: ((signal: AbortSignal) => Promise<Response>)[] = [];

  answers(...answers: ((signal: AbortSignal) => Promise<Response>)[]): void {
    this.#answers.push(...answers);
  }

  fetch = (_url: string, init: RequestInit): Promise<Response> => {
    this.asked.push(new Headers(init.headers).get("last-event-id") ?? "");
    const signal = init.signal as AbortSignal;
    return (this.#answers.shift() ?? never)(signal);
  };
}

const never = (signal: AbortSignal): Promise<Response> =>
  new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));

type End = "ends" | "hangs" | "cuts";

/** The events as frames, and how the connection goes on behind them. */
function sends(events: readonly Event[], end: End): (signal: AbortSignal) => Promise<Response> {
  const text = events.map((event) => `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("");
  return (signal) => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(`retry: 1000\n\n${text}`));
        if (end === "ends") controller.close();
        // What was sent is read before a cut is noticed.
        if (end === "cuts") setTimeout(() => controller.error(new TypeError("network error")), 1);
        if (end === "hangs") signal.addEventListener("abort", () => controller.error(signal.reason));
      },
    });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  };
}

function refuses(status: number, headers: Record<string, string> = {}): () => Promise<Response> {
  const body = JSON.stringify({ detail: "no", code: "no", status, title: "no", request_id: "r", errors: [] });
  return () => Promise.resolve(new Response(body, { status, headers }));
}

function watcher(): { taken: number[]; told: Connection[]; refused: ApiError[]; events: TaskEvents } {
  const taken: number[] = [];
  const told: Connection[] = [];
  const refused: ApiError[] = [];
  let latest: Event | undefined;
  const events = new TaskEvents({
    taskId: 1,
    last: () => taken.at(-1) ?? 0,
    isAtEnd: () => latest?.type === "task.finished",
    onEvents: (some) => {
      taken.push(...some.map((event) => event.seq));
      latest = some.at(-1);
    },
    onConnection: (connection) => told.push(connection),
    onRefused: (error) => refused.push(error),
  });
  return { taken, told, refused, events };
}

const ALL = EVENTS.map((event) => event.seq);
let server: Server;

beforeEach(() => {
  vi.useFakeTimers();
  server = new Server();
  vi.stubGlobal("fetch", server.fetch);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a task's events", () => {
  it("come to their end, and nothing is asked again", async () => {
    server.answers(sends(EVENTS, "ends"));
    const { taken, told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(60_000);

    expect(taken).toEqual(ALL);
    expect(told).toEqual(["connecting", "live", "ended"]);
    expect(server.asked).toEqual(["0"]);
  });

  it("go on behind the last one after each cut", async () => {
    server.answers(sends(EVENTS.slice(0, 5), "cuts"), sends(EVENTS.slice(5, 9), "ends"), sends(EVENTS.slice(9), "ends"));
    const { taken, told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(30_000);

    expect(taken).toEqual(ALL);
    expect(server.asked).toEqual(["0", "5", "9"]);
    expect(told).toEqual(["connecting", "live", "waiting", "live", "waiting", "live", "ended"]);
  });

  it("are asked for again when the server is silent for 45 s, or does not answer within 10 s", async () => {
    server.answers(sends(EVENTS.slice(0, 5), "hangs"), never, sends(EVENTS.slice(5), "ends"));
    const { taken, told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(44_000);
    expect(told.at(-1)).toBe("live");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(told.at(-1)).toBe("waiting");
    await vi.advanceTimersByTimeAsync(30_000);

    expect(taken).toEqual(ALL);
    expect(server.asked).toEqual(["0", "5", "5"]);
  });

  it("are asked for no sooner than the server allows, and at once when somebody wants them", async () => {
    server.answers(refuses(503, { "retry-after": "20" }), refuses(503, { "retry-after": "20" }), sends(EVENTS, "ends"));
    const { taken, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(19_000);
    expect(server.asked).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(server.asked).toHaveLength(2);
    events.resume();
    await vi.advanceTimersByTimeAsync(10);

    expect(taken).toEqual(ALL);
  });

  it("wait longer after each failure, at most 4 s", async () => {
    server.answers(...Array.from({ length: 40 }, () => () => Promise.reject(new TypeError("unreachable"))));
    const { told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(60_000);

    expect(server.asked.length).toBeGreaterThan(6);
    expect(server.asked.length).toBeLessThan(40);
    expect(told).toEqual(["connecting", "waiting"]);
    events.close();
  });

  it("are given up where the server knows no such task", async () => {
    server.answers(refuses(404));
    const { refused, told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(60_000);

    expect(refused.map((error) => error.status)).toEqual([404]);
    expect([server.asked.length, told.at(-1)]).toEqual([1, "closed"]);
  });

  it("stop when they are closed, and go on where they were", async () => {
    server.answers(sends(EVENTS.slice(0, 5), "hangs"), sends(EVENTS.slice(5), "ends"));
    const { taken, told, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(10);
    events.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([server.asked.length, told.at(-1)]).toEqual([1, "closed"]);

    events.resume();
    events.resume();
    await vi.advanceTimersByTimeAsync(10);
    expect(taken).toEqual(ALL);
    expect(server.asked).toEqual(["0", "5"]);
  });

  it("with a gap are not taken", async () => {
    server.answers(sends([...EVENTS.slice(0, 3), ...EVENTS.slice(4)], "ends"), sends(EVENTS, "ends"));
    const { taken, events } = watcher();
    events.resume();
    await vi.advanceTimersByTimeAsync(10_000);

    expect(taken).toEqual(ALL);
  });
});

it("reads a part of a log and leaves", async () => {
  server.answers(sends(EVENTS.slice(4), "hangs"));
  const seen: number[] = [];
  for await (const events of readEvents(1, { after: 4, signal: new AbortController().signal })) {
    seen.push(...events.map((event) => event.seq));
    break;
  }
  expect(seen).toEqual(ALL.slice(4));
});
