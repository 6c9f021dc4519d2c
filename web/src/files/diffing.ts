/** Two texts compared line by line, changed lines word by word. Large: load it by `import("./diffing")`. */

import { diffLines, diffWordsWithSpace } from "diff";

export type Piece = { readonly text: string; readonly isChanged: boolean };

export type DiffLine = {
  readonly kind: "same" | "added" | "removed";
  readonly oldNumber: number | null;
  readonly newNumber: number | null;
  readonly pieces: readonly Piece[];
  /** The text ends here, without a line end. */
  readonly isOpen: boolean;
};

/** Lines that stand together; those of a fold are unchanged and far from any change. */
export type Section = { readonly isFold: boolean; readonly lines: readonly DiffLine[] };

export type Diff = { readonly sections: readonly Section[]; readonly added: number; readonly removed: number };

const CONTEXT = 3;
const FOLD_LEAST = 4; // fewer lines than that are shorter than the line that would stand for them
const PATIENCE_MS = 1500;
const WORDS_MOST = 1000; // characters of a line that is compared by words
const PAIRS_MOST = 400;
const ALIKE_LEAST = 0.35; // of a pair of lines; with less in common single words tell nothing

/** Texts that differ too much to be compared in time are told as all removed, all added. */
export function compare(before: string, after: string): Diff {
  const lines = numbered(before, after);
  return {
    sections: folded(lines),
    added: lines.filter((line) => line.kind === "added").length,
    removed: lines.filter((line) => line.kind === "removed").length,
  };
}

type Part = { readonly value: string; readonly added: boolean; readonly removed: boolean };

function partsOf(before: string, after: string): readonly Part[] {
  return (
    diffLines(before, after, { timeout: PATIENCE_MS }) ?? [
      { value: before, added: false, removed: true },
      { value: after, added: true, removed: false },
    ]
  );
}

function numbered(before: string, after: string): DiffLine[] {
  const lines: DiffLine[] = [];
  let [oldNumber, newNumber] = [1, 1];
  for (const part of partsOf(before, after)) {
    const kind = part.added ? "added" : part.removed ? "removed" : "same";
    for (const text of linesOf(part.value)) {
      lines.push({
        kind,
        oldNumber: kind === "added" ? null : oldNumber++,
        newNumber: kind === "removed" ? null : newNumber++,
        pieces: [{ text: shown(text, kind), isChanged: false }],
        isOpen: !text.endsWith("\n"),
      });
    }
  }
  return byWords(lines);
}

function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/** Where a line changed, its carriage return is to be seen: it may be all that changed. */
function shown(line: string, kind: DiffLine["kind"]): string {
  return line.replace(/\n$/, "").replace(/\r$/, kind === "same" ? "" : "␍");
}

/** Removed lines beside the added ones that follow them: which words differ. */
function byWords(lines: readonly DiffLine[]): DiffLine[] {
  const marked = [...lines];
  let pairs = 0;
  for (let at = 0; at < lines.length; at += 1) {
    if (lines[at]?.kind !== "removed") continue;
    const removed = runLength(lines, at, "removed");
    const added = runLength(lines, at + removed, "added");
    for (let row = 0; row < Math.min(removed, added) && pairs < PAIRS_MOST; row += 1, pairs += 1) {
      markWords(marked, at + row, at + removed + row);
    }
    at += removed + added - 1;
  }
  return marked;
}

function runLength(lines: readonly DiffLine[], from: number, kind: DiffLine["kind"]): number {
  let length = 0;
  while (lines[from + length]?.kind === kind) length += 1;
  return length;
}

function markWords(lines: DiffLine[], removedAt: number, addedAt: number): void {
  const [removed, added] = [lines[removedAt], lines[addedAt]];
  const [old, fresh] = [removed?.pieces[0]?.text ?? "", added?.pieces[0]?.text ?? ""];
  if (!removed || !added || Math.max(old.length, fresh.length) > WORDS_MOST) return;
  const parts = diffWordsWithSpace(old, fresh);
  const common = parts.reduce((sum, part) => (part.added || part.removed ? sum : sum + part.value.trim().length), 0);
  if (common < ALIKE_LEAST * Math.max(old.trim().length, fresh.trim().length)) return;
  const piecesOf = (left: "added" | "removed"): Piece[] =>
    parts.filter((part) => !part[left]).map((part) => ({ text: part.value, isChanged: part.added || part.removed }));
  lines[removedAt] = { ...removed, pieces: piecesOf("added") };
  lines[addedAt] = { ...added, pieces: piecesOf("removed") };
}

function folded(lines: readonly DiffLine[]): Section[] {
  const isNear = nearChanges(lines);
  const sections: Section[] = [];
  for (let at = 0; at < lines.length; ) {
    const begins = at;
    while (at < lines.length && isNear[at] === isNear[begins]) at += 1;
    const part = lines.slice(begins, at);
    const last = sections.at(-1);
    const isFold = isNear[begins] === false && part.length >= FOLD_LEAST;
    if (last && !last.isFold && !isFold) sections[sections.length - 1] = { isFold: false, lines: [...last.lines, ...part] };
    else sections.push({ isFold, lines: part });
  }
  return sections;
}

function nearChanges(lines: readonly DiffLine[]): boolean[] {
  const isNear = new Array<boolean>(lines.length).fill(false);
  lines.forEach((line, at) => {
    if (line.kind !== "same") isNear.fill(true, Math.max(0, at - CONTEXT), at + CONTEXT + 1);
  });
  return isNear;
}
