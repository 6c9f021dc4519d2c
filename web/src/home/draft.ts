/** The goal that is being written, kept on this device until it is sent. */

const KEY = "beray.draft.new";

export function readDraft(): string {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function keepDraft(goal: string): void {
  try {
    if (goal === "") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, goal);
  } catch {
    // Storage is off or full: the draft lives as long as the page.
  }
}
