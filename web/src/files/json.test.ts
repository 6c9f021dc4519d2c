import { describe, expect, it } from "vitest";
import { prettyJson } from "./json";

describe("prettyJson", () => {
  it("sets it out as JSON.stringify does", () => {
    const value = { a: [1, -2.5e3, { b: [] }], "c:{,}": 'say "hi" \\', d: {}, e: null, f: [[], [true]] };

    expect(prettyJson(JSON.stringify(value))).toBe(`${JSON.stringify(value, null, 2)}\n`);
  });

  it("keeps numbers and keys that parsing would lose", () => {
    expect(prettyJson('{"a":12345678901234567890,"a":1.0}')).toBe('{\n  "a": 12345678901234567890,\n  "a": 1.0\n}\n');
  });

  it("takes single values, and nothing that is no JSON", () => {
    expect(prettyJson(' "a" ')).toBe('"a"\n');
    expect(prettyJson("{a: 1}")).toBeNull();
    expect(prettyJson("")).toBeNull();
  });
});
