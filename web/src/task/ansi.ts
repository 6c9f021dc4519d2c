/** Output of terminal programs as pieces of text with classes: colours kept, all other control sequences obeyed or left out.
 *
 * Source: ECMA-48 (CSI, SGR, OSC) as terminals do it. Nothing of it can become markup or a style attribute.
 */

export type Piece = { readonly text: string; readonly classes: string };

type Look = { fg: string; bg: string; marks: ReadonlySet<string> };

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const MARKS: Readonly<Record<number, string>> = { 1: "bold", 2: "faint", 3: "italic", 4: "underline", 7: "inverse", 9: "struck" };
const PLAIN: Look = { fg: "", bg: "", marks: new Set() };

// CSI … final byte; OSC, DCS, SOS, PM, APC … up to BEL or ST; other escapes of two or three bytes; what is cut at the end.
const ESCAPE =
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x9b([0-?]*)[ -/]*([@-~])|\x1b\[[0-?]*[ -/]*$|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)|\x1b[ -/]*[0-~]|\x1b/g;
const CONTROLS = /[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]/g;

export function pieces(output: string): readonly Piece[] {
  const made: Piece[] = [];
  let look = PLAIN;
  let at = 0;
  const text = settledLines(output);
  for (const match of text.matchAll(ESCAPE)) {
    push(made, text.slice(at, match.index), look);
    at = match.index + match[0].length;
    if ((match[2] ?? match[4]) === "m") look = changed(look, match[1] ?? match[3] ?? "");
  }
  push(made, text.slice(at), look);
  return made;
}

/** Without any control sequence: for copying. */
export function plain(output: string): string {
  return settledLines(output).replace(ESCAPE, "").replace(CONTROLS, "");
}

/** Lines as they look in the end: a carriage return begins a line anew (progress bars), a backspace takes one back. */
function settledLines(output: string): string {
  if (!/[\r\b]/.test(output)) return output;
  return output
    .replace(/\r+\n/g, "\n")
    .split("\n")
    .map((line) => overwritten(line.replace(/\r+$/, "")))
    .join("\n");
}

function overwritten(line: string): string {
  const shown = line.slice(line.lastIndexOf("\r") + 1);
  if (!shown.includes("\b")) return shown;
  const kept: string[] = [];
  for (const character of shown) {
    if (character === "\b") kept.pop();
    else kept.push(character);
  }
  return kept.join("");
}

function push(made: Piece[], text: string, look: Look): void {
  const shown = text.replace(CONTROLS, "");
  if (shown === "") return;
  const classes = [look.fg && `fg-${look.fg}`, look.bg && `bg-${look.bg}`, ...look.marks].filter(Boolean).join(" ");
  const before = made.at(-1);
  if (before?.classes === classes) made[made.length - 1] = { text: before.text + shown, classes };
  else made.push({ text: shown, classes });
}

function changed(look: Look, parameters: string): Look {
  const codes = parameters.split(/[;:]/).map((code) => Number(code || 0));
  let next = look;
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 38 || code === 48) {
      const colour = codes[at + 1] === 5 ? indexed(codes[at + 2] ?? 0) : nearest(codes[at + 2] ?? 0, codes[at + 3] ?? 0, codes[at + 4] ?? 0);
      next = code === 38 ? { ...next, fg: colour } : { ...next, bg: colour };
      at += codes[at + 1] === 5 ? 2 : 4;
    } else {
      next = simple(next, code);
    }
  }
  return next;
}

function simple(look: Look, code: number): Look {
  if (code === 0) return PLAIN;
  if (MARKS[code]) return { ...look, marks: new Set([...look.marks, MARKS[code]]) };
  if (code === 22) return without(look, "bold", "faint");
  if (code >= 23 && code <= 29) return without(look, MARKS[code - 20] ?? "");
  if (code === 39) return { ...look, fg: "" };
  if (code === 49) return { ...look, bg: "" };
  const name = (first: number, prefix: string): string => prefix + (COLOURS[code - first] ?? "");
  if (code >= 30 && code <= 37) return { ...look, fg: name(30, "") };
  if (code >= 40 && code <= 47) return { ...look, bg: name(40, "") };
  if (code >= 90 && code <= 97) return { ...look, fg: name(90, "bright-") };
  if (code >= 100 && code <= 107) return { ...look, bg: name(100, "bright-") };
  return look;
}

function without(look: Look, ...marks: readonly string[]): Look {
  return { ...look, marks: new Set([...look.marks].filter((mark) => !marks.includes(mark))) };
}

/** Of the 256: the 16 as they are, the cube and the greys by the nearest of the 16. */
function indexed(index: number): string {
  if (index < 8) return COLOURS[index] ?? "";
  if (index < 16) return `bright-${COLOURS[index - 8] ?? ""}`;
  if (index >= 232) return grey((index - 232) * 10 + 8);
  const cube = index - 16;
  const level = (step: number): number => (step === 0 ? 0 : 55 + step * 40);
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function nearest(red: number, green: number, blue: number): string {
  const most = Math.max(red, green, blue);
  if (most - Math.min(red, green, blue) < 32) return grey(most);
  const bit = (value: number): number => (value > most / 2 ? 1 : 0);
  return `${most > 180 ? "bright-" : ""}${COLOURS[bit(red) + 2 * bit(green) + 4 * bit(blue)] ?? ""}`;
}

function grey(level: number): string {
  if (level < 48) return "black";
  if (level < 128) return "bright-black";
  return level < 220 ? "white" : "bright-white";
}
