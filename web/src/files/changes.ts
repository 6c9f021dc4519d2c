/** What a task has changed of a file: pure functions on what its events tell.
 *
 * Events don't hold files. They hold what write_file and edit_file were called with, if that is short, and that a file was
 * created, modified or deleted. From these and the content that is there now earlier contents follow: forwards from a file
 * that did not exist or was written whole, backwards by undoing edits. What does not follow is said to be unknown.
 */

import type { Edit, FileChange, FileStep, TaskState } from "../events/reduce";

export type Change = FileStep["change"];

/** All that events tell of a file. */
export type History = { readonly path: string; readonly steps: readonly FileStep[]; readonly edits: ReadonlyMap<string, Edit> };

export type Before =
  | { readonly kind: "nothing" }
  /** `since` null: as it was before the task; else as it was after that event, and what was before is not known. */
  | { readonly kind: "text"; readonly text: string; readonly since: number | null }
  | { readonly kind: "unknown" };

/** What an edit replaced; `isWhole` false: the events hold only the beginning of its texts. */
export type Passage = { readonly seq: number; readonly old: string; readonly new: string; readonly isWhole: boolean };

/** Text; null: there is no file; undefined: it is not known. */
type Version = string | null | undefined;

const CUT = /… \[\d+ more characters\]$/;

/** Changed files that the events of one call name at most (`MOST_CHANGES` of the server's agent/recording.py). */
const TOLD_MOST = 200;

type Told = Pick<TaskState, "files" | "edits">;

/** Whether a call may have changed more files than its events name. */
export function hasUntold(files: TaskState["files"]): boolean {
  const told = new Map<string, number>();
  for (const { steps } of files.values()) {
    for (const { callId } of steps) {
      if (callId === null) continue;
      const count = (told.get(callId) ?? 0) + 1;
      if (count >= TOLD_MOST) return true;
      told.set(callId, count);
    }
  }
  return false;
}

/** The histories of all files that were changed, by path; `earlier` is what was before the first event of `task`. */
export function historiesOf(task: Told, earlier: Told | null): History[] {
  const paths = new Set([...(earlier?.files.keys() ?? []), ...task.files.keys()]);
  return [...paths].sort(byPath).map((path) => ({
    path,
    steps: joined(earlier?.files.get(path), task.files.get(path)),
    edits: new Map([...(earlier?.edits.get(path) ?? []), ...(task.edits.get(path) ?? [])].map((edit) => [edit.callId, edit])),
  }));
}

function joined(earlier: FileChange | undefined, later: FileChange | undefined): readonly FileStep[] {
  const first = later?.steps[0]?.seq ?? Infinity;
  return [...(earlier?.steps.filter((step) => step.seq < first) ?? []), ...(later?.steps ?? [])];
}

function byPath(one: string, other: string): number {
  return one < other ? -1 : 1;
}

/** What all changes together come to. */
export function netChange(steps: readonly FileStep[]): Change {
  if (steps.at(-1)?.change === "deleted") return "deleted";
  return steps[0]?.change === "created" ? "created" : "modified";
}

/** What the file held before; `now` null: it is not there, undefined: it can't be read. Of a deleted one: what was deleted. */
export function beforeOf(history: History, now: string | null | undefined): Before {
  const versions = versionsOf(history, now);
  if (netChange(history.steps) === "deleted") {
    const text = versions[lastDeletion(history.steps)];
    return typeof text === "string" ? { kind: "text", text, since: null } : { kind: "unknown" };
  }
  if (versions[0] === null) return { kind: "nothing" };
  const known = versions.slice(0, -1).findIndex((version) => typeof version === "string");
  const text = versions[known];
  if (typeof text !== "string") return { kind: "unknown" };
  return { kind: "text", text, since: known === 0 ? null : (history.steps[known - 1]?.seq ?? null) };
}

function lastDeletion(steps: readonly FileStep[]): number {
  return steps.findLastIndex((step) => step.change === "deleted");
}

/** The content before the first change, between each two, and now. */
function versionsOf({ steps, edits }: History, now: Version): Version[] {
  const versions: Version[] = [steps[0]?.change === "created" ? null : undefined];
  for (const [at, step] of steps.entries()) versions.push(step.change === "deleted" ? null : done(versions[at], editOf(step, edits)));
  if (now !== undefined) versions[steps.length] = now;
  for (let at = steps.length - 1; at >= 0; at -= 1) {
    const step = steps[at];
    if (step && versions[at] === undefined) versions[at] = undone(versions[at + 1], editOf(step, edits));
  }
  return versions;
}

function editOf(step: FileStep, edits: ReadonlyMap<string, Edit>): Edit | undefined {
  return step.callId === null ? undefined : edits.get(step.callId);
}

/** What an edit made of `before`. */
function done(before: Version, edit: Edit | undefined): Version {
  if (!edit) return undefined;
  if (edit.tool === "write_file") return whole(edit.args["content"]);
  const [old, fresh] = [whole(edit.args["old"]), whole(edit.args["new"])];
  return typeof before === "string" && old !== undefined && fresh !== undefined ? replacedOnce(before, old, fresh) : undefined;
}

/** What an edit was made of, if it left `after`. */
function undone(after: Version, edit: Edit | undefined): Version {
  if (typeof after !== "string" || edit?.tool !== "edit_file") return undefined;
  const [old, fresh] = [whole(edit.args["old"]), whole(edit.args["new"])];
  return old !== undefined && fresh !== undefined ? replacedOnce(after, fresh, old) : undefined;
}

/** Where `from` stands exactly once; in a file with CRLF the tool writes CRLF too. */
function replacedOnce(text: string, from: string, to: string): string | undefined {
  if (from === "") return undefined;
  const isCrlf = !text.includes(from) && text.includes("\r\n");
  const [sought, put] = isCrlf ? [from.replaceAll("\n", "\r\n"), to.replaceAll("\n", "\r\n")] : [from, to];
  const at = text.indexOf(sought);
  if (at === -1 || text.includes(sought, at + 1)) return undefined;
  return text.slice(0, at) + put + text.slice(at + sought.length);
}

/** An argument that the events hold in full. */
function whole(value: unknown): string | undefined {
  return typeof value === "string" && !CUT.test(value) ? value : undefined;
}

/** What each edit replaced, where the file as a whole can't be compared. */
export function passagesOf({ steps, edits }: History): Passage[] {
  return steps.flatMap((step) => {
    const edit = editOf(step, edits);
    if (edit?.tool !== "edit_file" || edit.ok === false) return [];
    const [old, fresh] = [String(edit.args["old"] ?? ""), String(edit.args["new"] ?? "")];
    return [{ seq: step.seq, old: old.replace(CUT, ""), new: fresh.replace(CUT, ""), isWhole: !CUT.test(old) && !CUT.test(fresh) }];
  });
}

/** Whether something other than write_file and edit_file changed it: a command, a program. */
export function hasOtherChanges({ steps, edits }: History): boolean {
  return steps.some((step) => step.change !== "deleted" && !editOf(step, edits));
}
