/** Whether bytes are text, and in which encoding: certain for UTF-8 and where a mark says so, else a guess that is told as one. */

export const ENCODINGS = ["utf-8", "gb18030", "big5", "shift_jis", "euc-kr", "windows-1252", "utf-16le", "utf-16be"] as const;

export type Encoding = (typeof ENCODINGS)[number];

export type Found = { readonly encoding: Encoding; readonly isGuess: boolean };

const CONTROL_SHARE_MOST = 0.02; // of bytes that no text needs; escape sequences of terminals have some

/** null: it is not text. `isPart`: there are more bytes, so the last character may be cut. */
export function encodingOf(content: Uint8Array, { isPart }: { isPart: boolean }): Found | null {
  const marked = markOf(content);
  if (marked) return { encoding: marked, isGuess: false };
  const hasNul = content.includes(0);
  if (isUtf8(content, isPart)) return hasNul ? null : { encoding: "utf-8", isGuess: false };
  if (hasNul) return null;
  if (shareOf(content, isOddControl) > CONTROL_SHARE_MOST) return null;
  return { encoding: looksChinese(content) ? "gb18030" : "windows-1252", isGuess: true };
}

/** What does not fit the encoding becomes U+FFFD. */
export function decoded(content: Uint8Array, encoding: Encoding, { isPart }: { isPart: boolean }): string {
  return new TextDecoder(encoding).decode(content, { stream: isPart });
}

function markOf(content: Uint8Array): Encoding | null {
  const [first, second, third] = content;
  if (first === 0xef && second === 0xbb && third === 0xbf) return "utf-8";
  if (first === 0xff && second === 0xfe) return "utf-16le";
  return first === 0xfe && second === 0xff ? "utf-16be" : null;
}

function isUtf8(content: Uint8Array, isPart: boolean): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(content, { stream: isPart });
    return true;
  } catch {
    return false;
  }
}

function isOddControl(byte: number): boolean {
  return byte < 32 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 12 && byte !== 27;
}

function shareOf(content: Uint8Array, fits: (byte: number) => boolean): number {
  let count = 0;
  for (const byte of content) if (fits(byte)) count += 1;
  return count / Math.max(content.length, 1);
}

/** GB 2312 writes a character as two bytes of 0xA1 or more; in European texts such bytes mostly stand alone. */
function looksChinese(content: Uint8Array): boolean {
  let inPairs = 0;
  let alone = 0;
  for (let at = 0; at < content.length; at += 1) {
    if ((content[at] ?? 0) < 0x80) continue;
    const isPair = (content[at] ?? 0) >= 0xa1 && (content[at + 1] ?? 0) >= 0xa1;
    if (isPair) {
      inPairs += 1;
      at += 1;
    } else {
      alone += 1;
    }
  }
  return inPairs > alone * 4;
}
