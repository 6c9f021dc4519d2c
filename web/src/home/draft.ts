/** The goal that is being written, kept on this device until it is sent; each user has their own. */

import { session } from "../state/session.svelte";

function key(): string {
  return `beray.draft.new.${session.user?.id ?? 0}`;
}

export function readDraft(): string {
  try {
    return localStorage.getItem(key()) ?? "";
  } catch {
    return "";
  }
}

export function keepDraft(goal: string): void {
  try {
    if (goal === "") localStorage.removeItem(key());
    else localStorage.setItem(key(), goal);
  } catch {
    // Storage is off or full: the draft lives as long as the page.
  }
}
