/** Keys that do something: pages register theirs while they are there. Off while somebody types, beside an open dialog, and by choice
 * (WCAG 2.1.4); `mod+` is Ctrl, or Command on a Mac, and works always. */

import { untrack } from "svelte";
import { preferences } from "../state/preferences.svelte";
import { overlays } from "./overlays.svelte";

export type Shortcut = {
  /** As `KeyboardEvent.key` gives it, `mod+` before it if need be: `n`, `?`, `Enter`, `mod+k`. */
  readonly key: string;
  readonly label: () => string;
  readonly run: () => void;
};

class Shortcuts {
  list = $state.raw<readonly Shortcut[]>([]);

  constructor() {
    addEventListener("keydown", (event) => this.#press(event));
  }

  /** Of two with the same key the later one counts. Gives back what takes it away again: `$effect(() => shortcuts.register(...))`. */
  register(key: string, label: () => string, run: () => void): () => void {
    const shortcut = { key, label, run };
    this.list = [...untrack(() => this.list), shortcut]; // the effect that registers must not wait for others to
    return () => {
      this.list = this.list.filter((one) => one !== shortcut);
    };
  }

  #press(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing || event.altKey) return;
    const hasModifier = event.ctrlKey || event.metaKey;
    const isBeside = overlays.open !== null || document.querySelector("dialog[open]") !== null;
    if (!hasModifier && (!preferences.hasShortcuts || isTyping(event) || isBeside)) return;
    const key = hasModifier ? `mod+${event.key.toLowerCase()}` : event.key;
    const shortcut = this.list.findLast((one) => one.key === key);
    if (!shortcut) return;
    event.preventDefault();
    shortcut.run();
  }
}

/** Whether the key belongs to what has the focus: a text field, or Enter on a link or a button. */
function isTyping(event: KeyboardEvent): boolean {
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest("input, textarea, select, [contenteditable], [role=menu], [role=listbox]")) return true;
  return event.key === "Enter" && target?.closest("a, button, summary") != null;
}

export const shortcuts = new Shortcuts();
