import { describe, expect, it } from "vitest";
import { RECORDED, recorded } from "./recorded.test-data";
import { initialState, reduceAll } from "./reduce";
import { Replay } from "./replay";
import type { Event } from "./types";

function many(count: number): Event[] {
  const delta = { v: 1, at: "2026-01-01T00:00:00.000Z", task_id: 1, type: "text.delta", message_id: "m", delta: "x" };
  return Array.from({ length: count }, (_, at) => ({ ...delta, seq: at + 1 }) as unknown as Event);
}

describe("a replay", () => {
  it.each(RECORDED.map((one) => [one.name, one] as const))("of %s is at any moment what the events until then come to", (_name, { events }) => {
    const replay = new Replay(events);
    for (const at of [events.length, 3, 4, 0, 7, events.length - 1, 1]) {
      expect(replay.at(at)).toEqual(reduceAll(initialState, events.slice(0, at)));
    }
  });

  it("of a long log finds its way from kept states", () => {
    const events = many(1200);
    const replay = new Replay(events);
    for (const at of [1200, 10, 999, 1000, 251, 250, 249, 0, 1200]) {
      expect(replay.at(at)).toEqual(reduceAll(initialState, events.slice(0, at)));
    }
  });

  it("stays within the log", () => {
    const replay = new Replay(many(3));
    expect(replay.at(-5)).toBe(replay.at(0));
    expect(replay.at(99).last).toBe(3);
    expect([new Replay([]).timeOf(0), new Replay([]).countAt(5)]).toEqual([0, 0]);
  });

  it("shortens long silences, and plays the events in their order", () => {
    const replay = new Replay(recorded("two-runs").events);
    for (let at = 1; at < replay.count; at += 1) {
      const gap = replay.timeOf(at) - replay.timeOf(at - 1);
      expect(gap >= 0 && gap <= 1500).toBe(true);
    }
    expect(replay.countAt(replay.timeOf(replay.count - 1))).toBe(replay.count);
    expect(replay.countAt(-1)).toBe(0);
  });
});
