/** The uploads of each task's page. They go on while one looks at another page; closing the window asks first. */

import { Uploads } from "./uploads.svelte";
import { workDirOf } from "./workDir.svelte";

const all = new Map<number, Uploads>();

addEventListener("beforeunload", (event) => {
  if (Array.from(all.values()).some((uploads) => uploads.isBusy)) event.preventDefault();
});

/** The same for all who ask. */
export function uploadsOf(taskId: number): Uploads {
  const known = all.get(taskId);
  if (known) return known;
  const uploads = new Uploads(() => workDirOf(taskId).note());
  uploads.begin(taskId);
  all.set(taskId, uploads);
  return uploads;
}
