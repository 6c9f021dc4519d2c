import { describe, expect, it } from "vitest";
import { decoded, encodingOf } from "./encoding";

const utf8 = (text: string) => new TextEncoder().encode(text);
const found = (content: Uint8Array, isPart = false) => encodingOf(content, { isPart });

describe("encodingOf", () => {
  it("knows UTF-8, with and without a mark, empty, and cut in the middle of a character", () => {
    expect(found(utf8("naïve 中文 😀"))).toEqual({ encoding: "utf-8", isGuess: false });
    expect(found(new Uint8Array([0xef, 0xbb, 0xbf, 0x61]))).toEqual({ encoding: "utf-8", isGuess: false });
    expect(found(new Uint8Array())).toEqual({ encoding: "utf-8", isGuess: false });
    expect(found(utf8("中文").slice(0, 4), true)).toEqual({ encoding: "utf-8", isGuess: false });
  });

  it("knows UTF-16 by its mark", () => {
    expect(found(new Uint8Array([0xff, 0xfe, 0x61, 0]))?.encoding).toBe("utf-16le");
    expect(found(new Uint8Array([0xfe, 0xff, 0, 0x61]))?.encoding).toBe("utf-16be");
  });

  it("takes NUL bytes and many control characters for no text", () => {
    expect(found(new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 0, 1]))).toBeNull();
    expect(found(utf8("a\0b"))).toBeNull();
    expect(found(new Uint8Array([0xff, 1, 2, 3, 4, 5, 6]))).toBeNull();
  });

  it("guesses, and says that it does", () => {
    expect(found(new Uint8Array([0xd6, 0xd0, 0xce, 0xc4, 0x0a]))).toEqual({ encoding: "gb18030", isGuess: true });
    expect(found(new Uint8Array([0x63, 0x61, 0x66, 0xe9, 0x20]))).toEqual({ encoding: "windows-1252", isGuess: true });
  });

  it("lets terminal colours be text", () => {
    expect(found(utf8("\u001b[31mred\u001b[0m plain"))?.encoding).toBe("utf-8");
  });
});

describe("decoded", () => {
  it("reads what was found", () => {
    expect(decoded(new Uint8Array([0xd6, 0xd0, 0xce, 0xc4]), "gb18030", { isPart: false })).toBe("中文");
    expect(decoded(new Uint8Array([0xff, 0xfe, 0x61, 0]), "utf-16le", { isPart: false })).toBe("a");
  });

  it("waits for the rest of a character that is cut", () => {
    expect(decoded(utf8("中文").slice(0, 4), "utf-8", { isPart: true })).toBe("中");
  });
});
