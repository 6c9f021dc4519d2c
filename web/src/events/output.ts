/** A call's output as far as a page holds it: its beginning and its end. */

export type Output = {
  readonly head: string;
  readonly tail: string;
  /** Characters that are left out between them. */
  readonly omitted: number;
  /** The server has shown less than there was. */
  readonly isTruncated: boolean;
};

export const NO_OUTPUT: Output = { head: "", tail: "", omitted: 0, isTruncated: false };

const MOST = 64 * 1024; // a page with a thousand calls stays small; the whole is a request away
const HALF = MOST / 2;

/** `output` with more at its end. */
export function grown(output: Output, delta: string, isTruncated: boolean): Output {
  const room = output.tail || output.omitted ? 0 : Math.max(0, HALF - output.head.length);
  const head = room ? output.head + delta.slice(0, room) : output.head;
  const tail = output.tail + delta.slice(room);
  // Cut now and then, not at every piece: a tail of a large output would be copied each time.
  const cut = tail.length > 2 * HALF ? whole(tail, tail.length - HALF) : 0;
  return {
    head,
    tail: cut ? tail.slice(cut) : tail,
    omitted: output.omitted + cut,
    isTruncated: output.isTruncated || isTruncated,
  };
}

/** The beginning of a line at or soon after `at`, else `at`: what is shown begins with a whole line where it can. */
function whole(text: string, at: number): number {
  const next = text.indexOf("\n", at) + 1;
  return next > 0 && next - at < 2000 ? next : at;
}

export function isEmpty(output: Output): boolean {
  return output.head === "" && output.tail === "" && !output.isTruncated;
}
