import { describe, expect, it } from "vitest";
import { highlightedLines, linesOf } from "./colouredLines";

describe("linesOf", () => {
  it("keeps a piece's class over several lines, and the innermost of nested ones", () => {
    expect(linesOf('<span class="s">a\n<span class="t">b</span>c</span>\n\nd')).toEqual([
      [{ text: "a", className: "s" }],
      [
        { text: "b", className: "t" },
        { text: "c", className: "s" },
      ],
      [],
      [{ text: "d", className: "" }],
    ]);
  });
});

describe("highlightedLines", () => {
  it("gives back exactly the text, whatever stands in it", async () => {
    const text = `x = "<b>&amp;'\\""  # <script>alert(1)</script>\n\ndef f():\n    return '''\n&lt;'''\n`;
    const lines = await highlightedLines(text, "python");

    expect(lines?.map((line) => line.map((piece) => piece.text).join("")).join("\n")).toBe(text);
    expect(lines?.[2]?.[0]).toEqual({ text: "def", className: "hljs-keyword" });
  });

  it("leaves alone what it does not know, and what is too long", async () => {
    expect(await highlightedLines("a", "no-such-language")).toBeNull();
    expect(await highlightedLines("a".repeat(300_000), "python")).toBeNull();
  });
});
