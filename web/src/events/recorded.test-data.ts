/** The logs that servers really sent (`tests/streams/`), for the tests. */

import type { Event } from "./types";

const LOGS = import.meta.glob<string>("../../../tests/streams/*.jsonl", { query: "?raw", import: "default", eager: true });
const STATES = import.meta.glob<Told>("../../../tests/streams/*.json", { import: "default", eager: true });

/** What a log comes to, as `tests/support/told_state.py` has it. */
export type Told = {
  readonly status: string;
  readonly texts: readonly string[];
  readonly calls: readonly { readonly output: { readonly characters: number } }[];
};

export type Recorded = { readonly name: string; readonly events: readonly Event[]; readonly told: Told };

export const RECORDED: readonly Recorded[] = Object.entries(LOGS).map(([path, log]) => ({
  name: path.replace(/.*\/|\.jsonl$/g, ""),
  events: log
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Event),
  told: STATES[path.replace(/\.jsonl$/, ".expected.json")] as Told,
}));

export function recorded(name: string): Recorded {
  const found = RECORDED.find((one) => one.name === name);
  if (!found) throw new Error(`no recorded log ${name}`);
  return found;
}
