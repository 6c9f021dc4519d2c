/** Opens or closes all calls of a task's page at once; each can still be opened and closed by itself. */

import { getContext, setContext } from "svelte";

const KEY = Symbol("unfolding");

export class Unfolding {
  isOpen = $state(false);
  /** Rises with each wish. */
  wishes = $state(0);

  toggle(): void {
    this.isOpen = !this.isOpen;
    this.wishes += 1;
  }
}

export function offerUnfolding(): Unfolding {
  return setContext(KEY, new Unfolding());
}

/** Calls `set` with each wish that comes from now on; use it while a component is made. */
export function heedUnfolding(set: (isOpen: boolean) => void): void {
  const unfolding = getContext<Unfolding>(KEY);
  let heeded = unfolding.wishes;
  $effect(() => {
    if (unfolding.wishes === heeded) return;
    heeded = unfolding.wishes;
    set(unfolding.isOpen);
  });
}
