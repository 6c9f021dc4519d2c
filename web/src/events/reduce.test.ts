import { describe, expect, it } from "vitest";
import type { Block, BlockOf } from "./blocks";
import { RECORDED, recorded } from "./recorded.test-data";
import { initialState, reduce, reduceAll, withTask, type TaskState } from "./reduce";
import { settled } from "./settle";
import type { Event } from "./types";

function blocksOf<K extends Block["kind"]>(state: TaskState, kind: K): BlockOf<K>[] {
  return state.blocks.filter((block): block is BlockOf<K> => block.kind === kind);
}

/** The same as `tests/support/told_state.py` tells. */
function told(state: TaskState): unknown {
  return {
    status: state.status,
    run: state.run,
    attempt: state.attempt,
    last: state.last,
    texts: blocksOf(state, "text").map((block) => block.text),
    calls: blocksOf(state, "call").map(({ callId, name, status, output }) => {
      const characters = [...output.head, ...output.tail];
      return { call_id: callId, name, status, output: { characters: characters.length + output.omitted, end: characters.slice(-40).join("") } };
    }),
    said: state.blocks.flatMap((block) => (block.kind === "message" ? [block.content] : block.kind === "question" && block.answer !== null ? [block.answer] : [])),
    files: Object.fromEntries([...state.files].map(([path, file]) => [path, file.change])),
    edits: Object.fromEntries([...state.edits].map(([path, edits]) => [path, edits.map((edit) => edit.callId)])),
    plan: state.plan,
    usage: state.usage,
    result: state.result,
    error: state.error,
  };
}

function one(type: string, fields: object, seq: number): Event {
  return { v: 1, seq, at: "2026-01-01T00:00:00.000Z", task_id: 1, type, ...fields } as unknown as Event;
}

/** Events in order, from a number on. */
function log(...events: readonly (readonly [string, object])[]): Event[] {
  return events.map(([type, fields], index) => one(type, fields, index + 1));
}

const STATE = { status: "running", model: "m", model_kind: "model", run: 1, attempt: 1, stop_requested: false };
const CALL = { call_id: "c", name: "shell", args: { command: "ls" }, title: "shell ls" };

describe.each(RECORDED.map((one) => [one.name, one] as const))("the recorded log %s", (_name, { events, told: expected }) => {
  it("comes to what stands beside it", () => {
    expect(told(reduceAll(initialState, events))).toEqual(expected);
  });

  it("comes to the same event by event, in pieces, and with repeats", () => {
    const whole = reduceAll(initialState, events);
    let state = initialState;
    for (const event of events) state = reduce(state, event);
    expect(state).toEqual(whole);

    state = initialState;
    for (let at = 0; at < events.length; at += 5) state = reduceAll(state, events.slice(Math.max(0, at - 3), at + 5));
    expect(state).toEqual(whole);
    expect(reduceAll(whole, events)).toEqual(whole);
  });

  it("keeps the blocks that a piece does not touch", () => {
    const middle = Math.floor(events.length / 2);
    const before = reduceAll(initialState, events.slice(0, middle));
    const after = reduceAll(before, events.slice(middle));
    for (const block of before.blocks) {
      const now = after.blocks.find((other) => other.key === block.key);
      if (now && now.last === block.last) expect(now).toBe(block);
    }
  });

  it("is known in part from its end, and exactly with the events before", () => {
    const tail = reduceAll(initialState, events.slice(-8));
    expect(tail.status).toBe(reduceAll(initialState, events).status);
    const whole = settled(reduceAll(initialState, events), tail);
    expect(told(whole)).toEqual(expected);
  });
});

describe("texts", () => {
  const begun = log(["text.delta", { message_id: "m", delta: "Hel" }], ["text.delta", { message_id: "m", delta: "lo" }]);

  it("grow, and are replaced by the whole", () => {
    const growing = reduceAll(initialState, begun);
    expect(blocksOf(growing, "text")).toMatchObject([{ text: "Hello", isDone: false, seq: 1, last: 2 }]);
    expect(blocksOf(reduce(growing, one("text.done", { message_id: "m", text: "Hello!" }, 3)), "text")).toMatchObject([{ text: "Hello!", isDone: true }]);
  });

  it("are gone when their stream was cut", () => {
    const cut = reduce(reduceAll(initialState, begun), one("text.reset", { message_id: "m", reason: "cut" }, 3));
    expect(cut.blocks).toEqual([]);
  });

  it("that are the result stand in the end alone", () => {
    const state = reduceAll(initialState, recorded("talk").events);
    expect(blocksOf(state, "text").map((block) => block.isResult)).toEqual([false, true]);
  });
});

describe("calls", () => {
  it("whose beginning is not known are shown as far as they are", () => {
    const state = reduce(initialState, one("tool.output", { call_id: "c", stream: "stdout", delta: "x", truncated: false }, 40));
    expect(blocksOf(state, "call")).toMatchObject([{ callId: "c", name: "", status: "running", output: { head: "x" } }]);
    const end = { call_id: "c", ok: true, summary: "done", exit_code: 0, duration_ms: 5, truncated: true };
    expect(blocksOf(reduce(state, one("tool.finished", end, 41)), "call")).toMatchObject([{ status: "ok", output: { isTruncated: true } }]);
  });

  it("keep the beginning and the end of a large output", () => {
    const line = `${"x".repeat(1023)}\n`;
    const pieces = Array.from({ length: 1000 }, (_, at) => one("tool.output", { call_id: "c", stream: "stdout", delta: line, truncated: false }, at + 2));
    const state = reduceAll(initialState, [one("tool.started", CALL, 1), ...pieces, one("tool.output", { call_id: "c", stream: "stdout", delta: "end\n", truncated: false }, 1002)]);
    const [call] = blocksOf(state, "call");
    const output = call?.output;
    expect(output?.tail.endsWith("end\n")).toBe(true);
    expect((output?.head.length ?? 0) + (output?.tail.length ?? 0)).toBeLessThan(100 * 1024);
    expect((output?.head.length ?? 0) + (output?.tail.length ?? 0) + (output?.omitted ?? 0)).toBe(1000 * 1024 + 4);
  });

  it("end with their run", () => {
    const state = reduceAll(initialState, recorded("stop").events);
    expect(blocksOf(state, "call").map((call) => call.status)).toEqual(["ended"]);
    expect(state.stopRequested).toBe(false);
  });
});

describe("what the user says", () => {
  it("answers the question, and begins the next run", () => {
    expect(blocksOf(reduceAll(initialState, recorded("talk").events), "question")).toMatchObject([{ status: "answered", answer: "中文" }]);
    expect(blocksOf(reduceAll(initialState, recorded("two-runs").events), "message")).toMatchObject([{ isGoal: true, run: 2 }]);
  });

  it("leaves a question open until the task goes on", () => {
    const events = recorded("talk").events;
    const asked = events.findIndex((event) => event.type === "input.requested");
    const open = reduceAll(initialState, events.slice(0, asked + 2));
    expect(open.question).toMatchObject({ question: "Which language?", choices: ["中文", "English"] });
    expect(open.status).toBe("waiting");

    const unanswered = reduce(open, one("task.status", STATE, open.last + 1));
    expect(unanswered.question).toBeNull();
    expect(blocksOf(unanswered, "question")).toMatchObject([{ status: "closed" }]);
  });
});

describe("a state", () => {
  it("counts events of types that are not known, and goes on", () => {
    const state = reduceAll(initialState, log(["task.dreamt", {}], ["constructor", {}], ["plan.updated", { items: [] }]));
    expect([state.unknown, state.last, state.blocks.length]).toEqual([2, 3, 1]);
  });

  it("of a log's end takes from the task what its events don't tell", () => {
    const { events } = recorded("talk");
    const task = { status: "completed", model: "m", model_kind: "model", run: 1, attempt: 1, usage: { requests: 1 }, question: null } as never;
    const tail = withTask(reduceAll(initialState, events.slice(-1)), task);
    expect(tail).toMatchObject({ status: "completed", run: 1, model: "m" });
    expect(withTask(reduceAll(initialState, events), task)).toEqual(reduceAll(initialState, events));
  });

  it("names a takeover and the run that it is of", () => {
    const state = reduceAll(initialState, recorded("takeover").events);
    expect(blocksOf(state, "takeover")).toMatchObject([{ attempt: 2 }]);
    expect(blocksOf(state, "finish")).toMatchObject([{ run: 1, status: "completed" }]);
  });
});
