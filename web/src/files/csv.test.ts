import { describe, expect, it } from "vitest";
import { parseTable, separatorOf } from "./csv";

function rows(text: string, separator = ","): readonly (readonly string[])[] {
  return parseTable(text, { separator, most: 100 }).rows;
}

describe("parseTable", () => {
  it.each([
    ["a,b\n1,2\n", [["a", "b"], ["1", "2"]]],
    ["a,b\r\n1,2", [["a", "b"], ["1", "2"]]],
    ["a,b\r1,2\r", [["a", "b"], ["1", "2"]]],
    ["a,,\n", [["a", "", ""]]],
    ["\n\na", [[""], [""], ["a"]]],
    ['"a,b",c\n', [["a,b", "c"]]],
    ['"two\r\nlines",c\n', [["two\r\nlines", "c"]]],
    ['"say ""hi""",""\n', [['say "hi"', ""]]],
    ['a "quoted" word,b', [['a "quoted" word', "b"]]],
    ['"a"b,c', [["ab", "c"]]],
    ['"never closed,c\nd', [["never closed,c\nd"]]],
    ["", []],
    ["名称,数量\n苹果,3\n", [["名称", "数量"], ["苹果", "3"]]],
  ])("reads %j", (text, expected) => {
    expect(rows(text)).toEqual(expected);
  });

  it("takes another separator", () => {
    expect(rows("a\tb,c", "\t")).toEqual([["a", "b,c"]]);
  });

  it("stops at the wanted number of rows and says so", () => {
    expect(parseTable("1\n2\n3\n", { separator: ",", most: 2 })).toEqual({ rows: [["1"], ["2"]], columns: 1, isCut: true });
    expect(parseTable("1\n2\n", { separator: ",", most: 2 }).isCut).toBe(false);
  });

  it("leaves out the last row of a part, which may go on", () => {
    expect(parseTable("a,b\n1,2\n3,", { separator: ",", most: 9, isPart: true })).toEqual({ rows: [["a", "b"], ["1", "2"]], columns: 2, isCut: true });
  });

  it("gives back what a writer quoted, whatever it is", () => {
    const values = [["", 'a"b', "c,d"], ["e\nf", " g ", "\r\n"], ['"', '""', ",\n"]];
    const written = values.map((row) => row.map((value) => `"${value.replaceAll('"', '""')}"`).join(",")).join("\r\n");

    expect(rows(written)).toEqual(values);
  });

  it("reads a large table in little time", () => {
    const text = 'id,name,"a ""note"""\n'.repeat(100_000);

    expect(parseTable(text, { separator: ",", most: 200_000 }).rows.length).toBe(100_000);
  });
});

describe("separatorOf", () => {
  it.each([
    ["a.csv", "a;b;c\n1,5;2;3", ";"],
    ["a.csv", '"x;y;z",b\n', ","],
    ["a.csv", '"x\ny;;;",b\n', ","],
    ["a.csv", "a|b", "|"],
    ["a.csv", "alone", ","],
    ["A.TSV", "a,b", "\t"],
  ])("of %s %j", (path, text, separator) => {
    expect(separatorOf(path, text)).toBe(separator);
  });
});
