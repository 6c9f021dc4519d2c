/** Code in colours, as lines of coloured pieces, so that a text of many lines can be shown in parts, and nothing of it passes through HTML. */

import { highlighted } from "../ui/highlight";

export type Piece = { readonly text: string; readonly className: string };

export type Line = readonly Piece[];

/** null: the language is not known, or the text is too long. */
export async function highlightedLines(text: string, language: string): Promise<readonly Line[] | null> {
  const html = await highlighted(text, language);
  return html === null ? null : linesOf(html);
}

const MARKS = /<span class="([^"]*)">|<\/span>|\n|[^<\n]+/g;
const ENTITIES: Readonly<Record<string, string>> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/** What the highlighter wrote as HTML, read back: it knows `<span class>` and five entities. The innermost class colours a piece. */
export function linesOf(html: string): Line[] {
  const classes: string[] = [];
  let line: Piece[] = [];
  const lines: Line[] = [line];
  for (const [mark, className] of html.matchAll(MARKS)) {
    if (mark === "\n") lines.push((line = []));
    else if (className !== undefined) classes.push(className);
    else if (mark === "</span>") classes.pop();
    else line.push({ text: mark.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITIES[entity] ?? entity), className: classes.at(-1) ?? "" });
  }
  return lines;
}
