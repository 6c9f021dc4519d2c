/** JSON set out over lines. Its tokens stay as they were written: parsing and writing would change large numbers and double keys. */

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g;
const INDENT = "  ";

/** null: it is not JSON. */
export function prettyJson(text: string): string | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let depth = 0;
  let before = "";
  const pieces: string[] = [];
  for (const token of text.match(TOKEN) ?? []) {
    const isClosing = token === "}" || token === "]";
    if (isClosing) depth -= 1;
    const isEmptyPair = isClosing && (before === "{" || before === "[");
    const startsLine = before === "," || before === "{" || before === "[" || isClosing;
    if (startsLine && !isEmptyPair) pieces.push("\n", INDENT.repeat(depth));
    pieces.push(token === ":" ? ": " : token);
    if (token === "{" || token === "[") depth += 1;
    before = token;
  }
  return `${pieces.join("")}\n`;
}
