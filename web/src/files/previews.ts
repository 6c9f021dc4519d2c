/** How each kind of file is shown. */

import type { Kind } from "./kinds";

export const TABLE_BYTES = 4 << 20;
export const ROWS_MOST = 10_000;
export const HEX_BYTES = 256;

const MEDIA: ReadonlySet<Kind> = new Set(["image", "pdf", "html", "audio", "video"]);
const SWITCHED: ReadonlySet<Kind> = new Set(["markdown", "table", "json", "html"]);

/** The browser fetches it itself. */
export function isMedia(kind: Kind): boolean {
  return MEDIA.has(kind);
}

/** It can be seen as itself and as its source. */
export function hasSource(kind: Kind): boolean {
  return SWITCHED.has(kind);
}

/** A page with scripts of a stranger's is shown at once too: it is confined. */
export function startsRendered(kind: Kind): boolean {
  return kind !== "text" && kind !== "unknown";
}
