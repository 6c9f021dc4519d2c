import { describe, expect, it } from "vitest";
import type { Edit, FileChange, FileStep } from "../events/reduce";
import { initialState, reduceAll } from "../events/reduce";
import type { Event } from "../events/types";
import { beforeOf, hasOtherChanges, hasUntold, historiesOf, netChange, passagesOf, type History } from "./changes";

type Call = { tool: Edit["tool"]; args: Record<string, unknown> } | null;

const write = (content: string): Call => ({ tool: "write_file", args: { path: "a", content } });
const edit = (old: string, fresh: string): Call => ({ tool: "edit_file", args: { path: "a", old, new: fresh } });

/** Each step with the call that made it; null: a command. */
function history(...steps: [FileStep["change"], Call][]): History {
  const edits = new Map<string, Edit>();
  return {
    path: "a",
    edits,
    steps: steps.map(([change, call], at) => {
      const callId = `c${at}`;
      if (call) edits.set(callId, { callId, seq: at * 10, ok: true, ...call });
      return { change, size: 1, seq: at * 10 + 5, callId };
    }),
  };
}

const LONG = `${"x".repeat(20)}… [300 more characters]`;

describe("beforeOf", () => {
  it("is nothing for a file that the task made, however it was made and changed", () => {
    expect(beforeOf(history(["created", null], ["modified", null]), "now")).toEqual({ kind: "nothing" });
    expect(beforeOf(history(["created", write(LONG)]), "now")).toEqual({ kind: "nothing" });
  });

  it("undoes edits of a file that was there", () => {
    const changed = history(["modified", edit("one", "two")], ["modified", edit("\n", "\nthree\n")]);

    expect(beforeOf(changed, "two\nthree\n")).toEqual({ kind: "text", text: "one\n", since: null });
  });

  it("does not guess where an edit can't be undone in one way only", () => {
    expect(beforeOf(history(["modified", edit("one", "two")]), "two two")).toEqual({ kind: "unknown" });
    expect(beforeOf(history(["modified", edit("gone", "")]), "rest")).toEqual({ kind: "unknown" });
    expect(beforeOf(history(["modified", edit("one", LONG)]), "xx")).toEqual({ kind: "unknown" });
    expect(beforeOf(history(["modified", edit("one", "two")]), "three")).toEqual({ kind: "unknown" });
  });

  it("undoes in a file with CRLF what the tool did there", () => {
    expect(beforeOf(history(["modified", edit("a\nb", "c\nd")]), "c\r\nd\r\n")).toEqual({ kind: "text", text: "a\r\nb\r\n", since: null });
  });

  it("goes back as far as something is known, and says since when", () => {
    const changed = history(["modified", write("one\n")], ["modified", null], ["modified", edit("x", "y")]);

    expect(beforeOf(changed, "y\n")).toEqual({ kind: "text", text: "one\n", since: 5 });
  });

  it("knows nothing of what a command changed", () => {
    expect(beforeOf(history(["modified", null]), "now")).toEqual({ kind: "unknown" });
    expect(beforeOf(history(["modified", write("one")]), "one")).toEqual({ kind: "unknown" });
    expect(beforeOf(history(["modified", write("one")]), undefined)).toEqual({ kind: "unknown" });
  });

  it("is what was deleted, if that is known", () => {
    expect(beforeOf(history(["created", write("a\n")], ["modified", edit("a", "b")], ["deleted", null]), null)).toEqual({
      kind: "text",
      text: "b\n",
      since: null,
    });
    expect(beforeOf(history(["deleted", null]), null)).toEqual({ kind: "unknown" });
  });

  it("follows a file that was deleted and made again", () => {
    const again = history(["deleted", null], ["created", write("new")]);

    expect(netChange(again.steps)).toBe("modified");
    expect(beforeOf(again, "new")).toEqual({ kind: "unknown" });
  });
});

describe("netChange", () => {
  it.each([
    ["created", ["created", "modified"]],
    ["modified", ["modified", "modified"]],
    ["deleted", ["created", "deleted"]],
    ["created", ["created", "deleted", "created"]],
  ] as const)("is %s after %j", (net, changes) => {
    expect(netChange(history(...changes.map((change): [FileStep["change"], Call] => [change, null])).steps)).toBe(net);
  });
});

describe("passagesOf", () => {
  it("tells what edits replaced, and which are told in part", () => {
    const changed = history(["modified", edit("one", "two")], ["modified", null], ["modified", edit("x", LONG)]);

    expect(passagesOf(changed)).toEqual([
      { seq: 5, old: "one", new: "two", isWhole: true },
      { seq: 25, old: "x", new: "x".repeat(20), isWhole: false },
    ]);
    expect(hasOtherChanges(changed)).toBe(true);
    expect(hasOtherChanges(history(["modified", edit("a", "b")]))).toBe(false);
  });
});

describe("historiesOf", () => {
  const events = [
    { type: "tool.started", call_id: "1", name: "write_file", args: { path: "./b.txt", content: "one" }, title: "" },
    { type: "tool.finished", call_id: "1", ok: true, summary: "", exit_code: null, duration_ms: 1, truncated: false },
    { type: "file.changed", path: "b.txt", change: "created", size: 3 },
    { type: "tool.started", call_id: "2", name: "shell", args: { command: "x" }, title: "" },
    { type: "tool.finished", call_id: "2", ok: true, summary: "", exit_code: 0, duration_ms: 1, truncated: false },
    { type: "file.changed", path: "a.txt", change: "modified", size: 1 },
    { type: "file.changed", path: "b.txt", change: "modified", size: 4 },
  ].map((fields, at) => ({ v: 1, seq: at + 1, at: "2026-01-01T00:00:00.000Z", task_id: 1, ...fields }) as Event);

  it("knows of each change which call made it", () => {
    const [a, b] = historiesOf(reduceAll(initialState, events), null);

    expect(a).toMatchObject({ path: "a.txt", steps: [{ seq: 6, callId: "2" }] });
    expect(b?.steps.map((step) => step.callId)).toEqual(["1", "2"]);
    expect(b?.edits.get("1")?.args["content"]).toBe("one");
  });

  it("joins what was before the first event that is kept", () => {
    const whole = historiesOf(reduceAll(initialState, events), null);
    const tail = reduceAll(initialState, events.slice(4));

    expect(historiesOf(tail, reduceAll(initialState, events.slice(0, 4)))).toEqual(whole);
    expect(historiesOf(tail, reduceAll(initialState, events))).toEqual(whole);
  });
});

describe("hasUntold", () => {
  const made = (count: number): ReadonlyMap<string, FileChange> => {
    const step = { change: "created" as const, size: 1, seq: 1, callId: "unzip" };
    return new Map(Array.from({ length: count }, (_, at) => [`file${at}`, { change: step.change, size: 1, seq: 1, steps: [step] }]));
  };

  it("is so once a call's events name as many files as they may", () => {
    expect(hasUntold(made(199))).toBe(false);
    expect(hasUntold(made(200))).toBe(true);
  });
});
