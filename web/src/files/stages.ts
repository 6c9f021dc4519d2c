/** How far an upload is, in words. */

import type { UploadStage } from "./uploads.svelte";

const WORDS = {
  chosen: "stageChosen",
  waiting: "stageWaiting",
  sending: "stageSending",
  exists: "stageExists",
  done: "stageDone",
  failed: "stageFailed",
  cancelled: "stageCancelled",
} as const;

/** The key of its word in the dictionary of files. */
export function stageWord(stage: UploadStage): (typeof WORDS)[UploadStage] {
  return WORDS[stage];
}
