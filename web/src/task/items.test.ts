import { describe, expect, it } from "vitest";
import { recorded } from "../events/recorded.test-data";
import { initialState, reduceAll } from "../events/reduce";
import { callOfEvent, firstSeq, indexOfEvent, itemsOf, totalMs, type Item } from "./items";

const LIVE = { withOpenQuestion: false };

function shape(items: readonly Item[]): string[] {
  return items.map((item) => (item.kind === "calls" ? item.calls.map((call) => call.name).join("+") : item.block.kind));
}

const { events } = recorded("talk");
const blocks = reduceAll(initialState, events).blocks;

describe("the timeline", () => {
  it("shows calls together, and what they did only once", () => {
    expect(shape(itemsOf(blocks, LIVE))).toEqual(["goal", "text", "plan", "write_file", "question", "edit_file+shell", "finish"]);
  });

  it("shows an open question only where nobody can answer it", () => {
    const asked = events.findIndex((event) => event.type === "input.requested");
    const waiting = reduceAll(initialState, events.slice(0, asked + 2)).blocks;
    expect(shape(itemsOf(waiting, LIVE))).not.toContain("question");
    expect(shape(itemsOf(waiting, { withOpenQuestion: true }))).toContain("question");
  });

  it("finds where each event is to be seen", () => {
    const items = itemsOf(blocks, LIVE);
    const places = events.map((event) => indexOfEvent(items, event.seq));
    expect(places).toEqual([...places].sort((one, other) => one - other));
    expect([places[0], places.at(-1)]).toEqual([0, items.length - 1]);
    expect(indexOfEvent(items, 0)).toBe(-1);
    expect(items.map(firstSeq)).toEqual([...items.map(firstSeq)].sort((one, other) => one - other));
  });

  it("finds the call that an event is of", () => {
    const group = itemsOf(blocks, LIVE).find((item) => item.kind === "calls" && item.calls.length === 2);
    const calls = group?.kind === "calls" ? group.calls : [];
    for (const call of calls) expect(callOfEvent(calls, call.last)).toBe(call);
    expect(totalMs(calls)).toBe(calls.reduce((sum, call) => sum + (call.durationMs ?? 0), 0));
  });
});
