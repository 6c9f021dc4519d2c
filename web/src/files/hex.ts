/** Bytes as people look at them: offset, sixteen bytes in hexadecimal, the same as characters. */

const WIDTH = 16;

export function hexLines(content: Uint8Array): string[] {
  const lines: string[] = [];
  for (let at = 0; at < content.length; at += WIDTH) {
    const part = Array.from(content.subarray(at, at + WIDTH));
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0"));
    const halves = [hex.slice(0, 8).join(" "), hex.slice(8).join(" ")].join("  ");
    const characters = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${halves.padEnd(WIDTH * 3)}  ${characters}`);
  }
  return lines;
}
