/** A task as it was after any of its events: made from the nearest of some states that are kept. */

import { initialState, reduceAll, type TaskState } from "./reduce";
import type { Event } from "./types";

const EVERY = 250; // states kept: at most so many events are reduced for any moment
const GAP_MOST_MS = 1500; // of silence between two events, when they are played

export class Replay {
  readonly events: readonly Event[];
  #kept: TaskState[] = [initialState];
  #count = 0;
  #state = initialState;
  /** When each event comes, silences shortened; milliseconds from the start. */
  #times: Float64Array;

  constructor(events: readonly Event[]) {
    this.events = events;
    this.#times = new Float64Array(events.length);
    for (let at = 1; at < events.length; at += 1) {
      this.#times[at] = (this.#times[at - 1] ?? 0) + gap(events[at - 1], events[at]);
    }
  }

  get count(): number {
    return this.events.length;
  }

  /** The state after the first `count` events. */
  at(count: number): TaskState {
    const wanted = Math.max(0, Math.min(count, this.count));
    const isOnTheWay = wanted >= this.#count && wanted - this.#count <= EVERY;
    if (!isOnTheWay) this.#goTo(wanted);
    this.#state = reduceAll(this.#state, this.events.slice(this.#count, wanted));
    this.#count = wanted;
    return this.#state;
  }

  /** How long it is played from the start to the event with this index. */
  timeOf(index: number): number {
    return this.#times[Math.max(0, Math.min(index, this.count - 1))] ?? 0;
  }

  /** How many events have come by then. */
  countAt(milliseconds: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#times[middle] ?? 0) <= milliseconds) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Be at the latest kept state before `wanted`; those that are missing on the way are made. */
  #goTo(wanted: number): void {
    const index = Math.floor(wanted / EVERY);
    for (let at = this.#kept.length; at <= index; at += 1) {
      this.#kept[at] = reduceAll(this.#kept[at - 1] ?? initialState, this.events.slice((at - 1) * EVERY, at * EVERY));
    }
    this.#state = this.#kept[index] ?? initialState;
    this.#count = index * EVERY;
  }
}

function gap(before: Event | undefined, after: Event | undefined): number {
  const milliseconds = Date.parse(after?.at ?? "") - Date.parse(before?.at ?? "");
  return Number.isFinite(milliseconds) ? Math.max(0, Math.min(milliseconds, GAP_MOST_MS)) : 0;
}
