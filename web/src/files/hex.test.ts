import { expect, it } from "vitest";
import { hexLines } from "./hex";

it("sets bytes out in lines of sixteen", () => {
  const content = new Uint8Array([0x7f, 0x45, 0x4c, 0x46, ...new Array<number>(12).fill(0), 0x20]);

  expect(hexLines(content)).toEqual([
    "00000000  7f 45 4c 46 00 00 00 00  00 00 00 00 00 00 00 00  .ELF............",
    "00000010  20                                                 ",
  ]);
  expect(hexLines(new Uint8Array())).toEqual([]);
});
