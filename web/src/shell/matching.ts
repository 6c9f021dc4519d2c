/** Which commands fit what was typed. */

export type Found = { readonly label: string; readonly also: readonly string[] };

/** Those in which each of the words typed is found, the best first: a label that begins so, then one that holds it, then other words. */
export function matching<T extends Found>(commands: readonly T[], typed: string): readonly T[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return commands;
  return commands
    .map((command) => ({ command, rank: rank(command, words) }))
    .filter((one) => one.rank > 0)
    .sort((one, other) => other.rank - one.rank)
    .map((one) => one.command);
}

/** 0: it does not fit. */
function rank(command: Found, words: readonly string[]): number {
  const label = command.label.toLowerCase();
  const also = command.also.map((word) => word.toLowerCase());
  const ranks = words.map((word) => {
    if (label.startsWith(word)) return 4;
    if (label.includes(word)) return 3;
    if (also.some((other) => other.startsWith(word))) return 2;
    return also.some((other) => other.includes(word)) ? 1 : 0;
  });
  return Math.min(...ranks);
}
