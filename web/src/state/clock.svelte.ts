/** The time, ticking once a second while somebody looks at it: for ages and elapsed times. */

import { createSubscriber } from "svelte/reactivity";

const subscribe = createSubscriber((update) => {
  const timer = setInterval(update, 1000);
  return () => clearInterval(timer);
});

/** Milliseconds since the epoch; whoever reads it in an effect or a template is told each second. */
export function now(): number {
  subscribe();
  return Date.now();
}
