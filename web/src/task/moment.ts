/** The moment that a task's page shows: now, or that of a replay. */

import { getContext, setContext } from "svelte";

const KEY = Symbol("moment");

/** For the components below: milliseconds since the epoch. */
export function showMoment(moment: () => number): void {
  setContext(KEY, moment);
}

export function shownMoment(): () => number {
  return getContext<() => number>(KEY);
}
