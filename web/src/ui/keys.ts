/** Keys as they are called on this machine. */

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);

/** `mod+k` as `⌘K` or `Ctrl+K`; others as they are. */
export function keyName(key: string): string {
  if (!key.startsWith("mod+")) return key;
  const rest = key.slice(4);
  const name = rest === "enter" ? (isMac ? "↵" : "Enter") : rest.toUpperCase();
  return isMac ? `⌘${name}` : `Ctrl+${name}`;
}
