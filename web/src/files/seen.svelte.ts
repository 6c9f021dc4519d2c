/** Which files were made or changed since the task's page was opened, and have not been looked at since. */

import type { FileChange } from "../events/reduce";

export type Mark = "new" | "changed";

class SeenFiles {
  /** What happened before was there when the page was opened; null until it is. */
  #since = $state<number | null>(null);
  #seen = $state.raw<ReadonlyMap<string, number>>(new Map());

  begin(last: number): void {
    if (last > 0) this.#since ??= last;
  }

  /** The file is looked at as it is now. */
  note(path: string, seq: number): void {
    if (this.#seen.get(path) === seq) return;
    this.#seen = new Map(this.#seen).set(path, seq);
  }

  marks(files: ReadonlyMap<string, FileChange>): ReadonlyMap<string, Mark> {
    const marks = new Map<string, Mark>();
    const since = this.#since;
    if (since === null) return marks;
    for (const [path, { change, seq }] of files) {
      if (change === "deleted" || seq <= Math.max(since, this.#seen.get(path) ?? 0)) continue;
      marks.set(path, change === "created" ? "new" : "changed");
    }
    return marks;
  }
}

const all = new Map<number, SeenFiles>();

export function seenFiles(taskId: number): SeenFiles {
  let seen = all.get(taskId);
  if (!seen) all.set(taskId, (seen = new SeenFiles()));
  return seen;
}
