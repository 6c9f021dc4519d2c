import { describe, expect, it } from "vitest";
import { compare, type Diff } from "./diffing";

const SIGNS = { same: " ", added: "+", removed: "-" } as const;

function drawn(diff: Diff): string[] {
  return diff.sections.flatMap(({ isFold, lines }) =>
    isFold
      ? [`… ${lines.length}`]
      : lines.map((line) => SIGNS[line.kind] + line.pieces.map((piece) => (piece.isChanged ? `[${piece.text}]` : piece.text)).join("")),
  );
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, at) => `line ${at + 1}`);

describe("compare", () => {
  it("marks the words that changed in a line", () => {
    const diff = compare("let total = price * 2;\n", "let total = price * 3;\n");

    expect(drawn(diff)).toEqual(["-let total = price * [2];", "+let total = price * [3];"]);
    expect(diff).toMatchObject({ added: 1, removed: 1 });
  });

  it("leaves lines alone that have little in common", () => {
    expect(drawn(compare("alpha beta\n", "something else entirely\n"))).toEqual(["-alpha beta", "+something else entirely"]);
  });

  it("folds what is unchanged and far away, and keeps three lines beside a change", () => {
    const before = numbers(20);
    const after = before.with(9, "line X");

    expect(drawn(compare(`${before.join("\n")}\n`, `${after.join("\n")}\n`))).toEqual([
      "… 6",
      " line 7",
      " line 8",
      " line 9",
      "-line [10]",
      "+line [X]",
      " line 11",
      " line 12",
      " line 13",
      "… 7",
    ]);
  });

  it("does not fold where the fold would be no shorter", () => {
    const before = numbers(8);

    expect(drawn(compare(before.join("\n"), before.with(0, "X").with(7, "Y").join("\n"))).some((line) => line.startsWith("…"))).toBe(false);
  });

  it("numbers lines on both sides", () => {
    const lines = compare("a\nb\nc\n", "a\nc\nd\n").sections.flatMap((section) => section.lines);

    expect(lines.map((line) => [line.kind, line.oldNumber, line.newNumber])).toEqual([
      ["same", 1, 1],
      ["removed", 2, null],
      ["same", 3, 2],
      ["added", null, 3],
    ]);
  });

  it("tells of a line end that came or went, and of a carriage return", () => {
    expect(compare("a", "a\n").sections[0]?.lines.map((line) => line.isOpen)).toEqual([true, false]);
    expect(drawn(compare("a\n", "a\r\n"))).toEqual(["-a", "+a[␍]"]);
  });

  it("tells all as added, or removed, where the other side is empty", () => {
    expect(compare("", "a\nb\n")).toMatchObject({ added: 2, removed: 0 });
    expect(compare("a\nb\n", "")).toMatchObject({ added: 0, removed: 2 });
    expect(compare("", "").sections).toEqual([]);
  });

  it("gives both texts back", () => {
    const before = "α\n\nβ γ\nδ";
    const after = "\nα\nβ γ δ\n\n";
    const lines = compare(before, after).sections.flatMap((section) => section.lines);
    const side = (left: "added" | "removed") =>
      lines.filter((line) => line.kind !== left).map((line) => line.pieces.map((piece) => piece.text).join("") + (line.isOpen ? "" : "\n")).join("");

    expect(side("added")).toBe(before);
    expect(side("removed")).toBe(after);
  });
});
