import { describe, expect, it } from "vitest";
import { pieces, plain } from "./ansi";

const ESC = "\x1b";

describe("output of a terminal", () => {
  it.each([
    ["plain", [["plain", ""]]],
    [`${ESC}[31mred${ESC}[0m not`, [["red", "fg-red"], [" not", ""]]],
    [`${ESC}[1;4;92mall${ESC}[24mless`, [["all", "fg-bright-green bold underline"], ["less", "fg-bright-green bold"]]],
    [`${ESC}[41;30mbg${ESC}[49;39mout`, [["bg", "fg-black bg-red"], ["out", ""]]],
    [`${ESC}[mnothing${ESC}[m`, [["nothing", ""]]],
    [`${ESC}[38;5;9mi${ESC}[38;5;21mc${ESC}[38;5;240mg`, [["i", "fg-bright-red"], ["c", "fg-bright-blue"], ["g", "fg-bright-black"]]],
    [`${ESC}[38;2;0;0;255mblue`, [["blue", "fg-bright-blue"]]],
    [`${ESC}[38;2;1mhalf a colour`, [["half a colour", "fg-black"]]],
  ] as readonly (readonly [string, readonly (readonly [string, string])[]])[])("%j has these pieces", (output, wanted) => {
    expect(pieces(output).map((piece) => [piece.text, piece.classes])).toEqual(wanted);
  });

  it.each([
    ["cursor and erase", `a${ESC}[2K${ESC}[1;1Hb`, "ab"],
    ["titles and links", `${ESC}]0;title\x07a${ESC}]8;;http://x\x1b\\b${ESC}]8;;\x07`, "ab"],
    ["device control", `a${ESC}P1$r${ESC}\\b`, "ab"],
    ["what is cut at the end", `ab${ESC}[38;5`, "ab"],
    ["an unfinished title", `ab${ESC}]0;title`, "ab"],
    ["bells and NUL", "a\x07\0b", "ab"],
    ["C1 controls", "a\x9b31mb\x85", "ab"],
    ["a lone escape", `a${ESC}`, "a"],
    ["charset", `${ESC}(Bab`, "ab"],
  ])("%s are left out", (_what, output, wanted) => {
    expect(pieces(output).map((piece) => piece.text).join("")).toBe(wanted);
    expect(plain(output)).toBe(wanted);
  });

  it.each([
    ["10%\r50%\r100%\ndone", "100%\ndone"],
    ["one\r\ntwo\r\n", "one\ntwo\n"],
    ["ab\b\bcd", "cd"],
    ["working\r", "working"],
  ])("%j looks like %j in the end", (output, wanted) => {
    expect(plain(output)).toBe(wanted);
  });

  it("never becomes markup", () => {
    const [piece] = pieces(`<img src=x onerror=alert(1)>${ESC}[31`);
    expect(piece).toEqual({ text: "<img src=x onerror=alert(1)>", classes: "" });
  });

  it("of a megabyte is taken apart quickly enough", () => {
    const output = `${ESC}[3${1}mx${ESC}[0m${ESC}]0;`.repeat(60_000);
    expect(pieces(output).length).toBeGreaterThan(0);
    expect(plain(`${ESC}[`.repeat(200_000))).toBeDefined();
  });
});
