/** A state that was made anew shares with the one before it whatever is the same: only what differs is drawn again. */

import type { Block } from "./blocks";
import type { TaskState } from "./reduce";

export function settled(made: TaskState, before: TaskState): TaskState {
  const known = new Map(before.blocks.map((block) => [block.key, block]));
  return { ...made, blocks: made.blocks.map((block) => same(block, known.get(block.key)) ?? block) };
}

/** A block that begins and ends with the same events is the same, as long as none of its events was unknown before. */
function same(block: Block, before: Block | undefined): Block | undefined {
  return before?.kind === block.kind && before.seq === block.seq && before.last === block.last ? before : undefined;
}
