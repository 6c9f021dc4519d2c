import { describe, expect, it } from "vitest";
import { freePath, fromList } from "./dropped";

describe("fromList", () => {
  it("keeps the folders of a picked folder, and composes what macOS tells decomposed", () => {
    const picked = Object.defineProperty(new File(["x"], "b.txt"), "webkitRelativePath", { value: "a/b.txt" });

    expect(fromList([picked, new File([], "cafe\u0301.txt")]).map(({ path }) => path)).toEqual(["a/b.txt", "caf\u00e9.txt"]);
  });
});

describe("freePath", () => {
  it.each([
    ["a.png", [], "a.png"],
    ["a.png", ["a.png"], "a (2).png"],
    ["a.png", ["a.png", "a (2).png"], "a (3).png"],
    ["x.y/a", ["x.y/a"], "x.y/a (2)"],
    [".env", [".env"], ".env (2)"],
    ["a.tar.gz", ["a.tar.gz"], "a.tar (2).gz"],
  ])("of %s beside %j", (path, taken, free) => {
    expect(freePath(path, new Set(taken))).toBe(free);
  });
});
