/** Blocks as the timeline shows them: calls that follow each other together, and nothing told twice. */

import type { Block, CallBlock } from "../events/blocks";

export type Shown = Exclude<Block, CallBlock>;

export type Item =
  | { readonly kind: "block"; readonly key: string; readonly block: Shown }
  | { readonly kind: "calls"; readonly key: string; readonly calls: readonly CallBlock[] };

// What these do is shown by a block of its own: the plan, the question, the end.
const TOLD_OTHERWISE: ReadonlySet<string> = new Set(["update_plan", "ask_user", "finish"]);

type Wanted = { readonly withOpenQuestion: boolean };

export function itemsOf(blocks: readonly Block[], wanted: Wanted): readonly Item[] {
  const items: Item[] = [];
  let calls: CallBlock[] = [];
  for (const block of blocks) {
    if (isHidden(block, wanted)) continue;
    if (block.kind === "call") {
      if (calls.length === 0) items.push({ kind: "calls", key: `calls-${block.key}`, calls: (calls = []) });
      calls.push(block);
      continue;
    }
    calls = [];
    items.push({ kind: "block", key: block.key, block });
  }
  return items;
}

function isHidden(block: Block, wanted: Wanted): boolean {
  if (block.kind === "question") return block.status === "open" && !wanted.withOpenQuestion;
  if (block.kind === "text") return block.isResult || (block.isDone && block.text.trim() === "");
  return block.kind === "call" && TOLD_OTHERWISE.has(block.name) && block.status !== "failed";
}

/** Where the event with this number is to be seen: in the latest item that had begun by then. */
export function indexOfEvent(items: readonly Item[], seq: number): number {
  return items.findLastIndex((item) => firstSeq(item) <= seq);
}

export function firstSeq(item: Item): number {
  return item.kind === "block" ? item.block.seq : (item.calls[0]?.seq ?? 0);
}

/** The call of a group that an event belongs to. */
export function callOfEvent(calls: readonly CallBlock[], seq: number): CallBlock | undefined {
  return calls.find((call) => call.seq <= seq && seq <= call.last) ?? calls.findLast((call) => call.seq <= seq);
}

export function totalMs(calls: readonly CallBlock[]): number {
  return calls.reduce((sum, call) => sum + (call.durationMs ?? 0), 0);
}
