/** A file's history brought together with its content now: what can be compared, and what must be said of the rest. */

import { beforeOf, netChange, passagesOf, type History, type Passage } from "./changes";
import { FileGone, readHead, readPart } from "./content";
import type { Diff } from "./diffing";
import { decoded, encodingOf } from "./encoding";

const BYTES_MOST = 1 << 20;

/** A key of the dictionary of changes. */
export type Note = "unknownBefore" | "sinceFirst" | "binaryChange" | "tooLargeToCompare" | "goneSince" | "deletedUnknown" | "deletedLast";

export type Compared = {
  /** null: it can't be compared as a whole. */
  readonly diff: Diff | null;
  /** Whether the diff is from before the task to now. */
  readonly isComplete: boolean;
  readonly note: Note | null;
  /** Single edits, where the whole can't be compared. */
  readonly passages: readonly (Passage & { readonly diff: Diff })[];
};

/** What a file holds now; null: it is not there. */
type Now = { readonly text: string } | { readonly why: "binaryChange" | "tooLargeToCompare" } | null;

/** @throws {ApiError} The server refused.
 * @throws {NetworkError} It was not reached.
 */
export async function comparedWith(taskId: number, history: History, signal: AbortSignal): Promise<Compared> {
  const [{ compare }, now] = await Promise.all([import("./diffing"), readNow(taskId, history, signal)]);
  if (now === null) return deletion(history, compare);
  if ("why" in now) return only(now.why);
  const before = beforeOf(history, now.text);
  if (before.kind === "nothing") return { ...only(null), diff: compare("", now.text), isComplete: true };
  if (before.kind === "text") {
    const isComplete = before.since === null;
    return { ...only(isComplete ? null : "sinceFirst"), diff: compare(before.text, now.text), isComplete };
  }
  const passages = passagesOf(history).map((passage) => ({ ...passage, diff: compare(passage.old, passage.new) }));
  return { ...only("unknownBefore"), passages };
}

type Compare = (before: string, after: string) => Diff;

function deletion(history: History, compare: Compare): Compared {
  if (netChange(history.steps) !== "deleted") return only("goneSince");
  const before = beforeOf(history, null);
  if (before.kind !== "text") return only("deletedUnknown");
  return { ...only("deletedLast"), diff: compare(before.text, ""), isComplete: true };
}

function only(note: Note | null): Compared {
  return { diff: null, isComplete: false, note, passages: [] };
}

async function readNow(taskId: number, history: History, signal: AbortSignal): Promise<Now> {
  if (netChange(history.steps) === "deleted") return null; // asking would only bring a 404
  try {
    const head = await readHead(taskId, history.path, signal);
    if (head.size > BYTES_MOST) return { why: "tooLargeToCompare" };
    const content = await readPart(taskId, history.path, { head, start: 0, stop: head.size, signal });
    const found = encodingOf(content, { isPart: false });
    return found ? { text: decoded(content, found.encoding, { isPart: false }) } : { why: "binaryChange" };
  } catch (error) {
    if (error instanceof FileGone) return null;
    throw error;
  }
}
