/** Markdown of agents as tokens and clean HTML. Large: load it by `import("./richText")`. */

import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";
import { API } from "../api/client";

export type { Token, Tokens };

// HTML in the text of an agent is shown as it was written, but for marks without attributes: a parser that meets an
// event handler reports a breach of the page's policy even where the handler is dropped.
const HARMLESS = /^<\/?(?:b|br|code|del|em|hr|i|ins|kbd|mark|s|small|strong|sub|sup|u)\s*\/?>$/i;

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => (HARMLESS.test(text.trim()) ? text : escaped(text)),
  },
});

function escaped(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

/** The task whose files relative addresses name, seen from `folder`; `has` tells which there are. */
export type Place = { readonly taskId: number; readonly folder?: string; readonly has: (path: string) => boolean };

/** Text that grows at its end, as tokens. What can't change any more is not parsed again, and stays the same object. */
export class GrowingMarkdown {
  #frozen: Token[] = [];
  #consumed = "";

  tokens(text: string): readonly Token[] {
    if (!text.startsWith(this.#consumed)) {
      this.#frozen = [];
      this.#consumed = "";
    }
    const fresh = marked.lexer(text.slice(this.#consumed.length));
    const done = fresh.slice(0, firstOpen(fresh));
    this.#frozen = [...this.#frozen, ...done];
    this.#consumed += done.map((token) => token.raw).join("");
    return [...this.#frozen, ...fresh.slice(done.length)];
  }
}

/** Where the blocks begin that may go on: the last one, and a list before it as long as that has no whole line, for `2`
 * may become the list's next item. Blank lines end no list.
 */
function firstOpen(tokens: readonly Token[]): number {
  const last = tokens.findLastIndex((token) => token.type !== "space");
  const isWhole = tokens[last]?.raw.includes("\n") || last < tokens.length - 1;
  const before = tokens.findLastIndex((token, at) => at < last && token.type !== "space");
  return Math.max(0, !isWhole && tokens[before]?.type === "list" ? before : last);
}

/** The HTML of one token, safe to be put into the page. */
export function html(token: Token, place: Place | null): string {
  const clean = DOMPurify.sanitize(marked.parser([token]), {
    USE_PROFILES: { html: true },
    FORBID_TAGS: ["audio", "button", "form", "input", "picture", "select", "source", "style", "textarea", "track", "video"],
    FORBID_ATTR: ["class", "id", "name", "style", "srcset"],
    RETURN_DOM_FRAGMENT: true,
  });
  // A document without a window: nothing in it is loaded.
  const inert = document.implementation.createHTMLDocument("");
  const root = inert.createElement("div");
  root.append(inert.adoptNode(clean));
  for (const image of root.querySelectorAll("img")) mendImage(image, place, inert);
  for (const link of root.querySelectorAll("a")) mendLink(link, place);
  for (const table of root.querySelectorAll("table")) wrapTable(table, inert);
  return root.innerHTML;
}

const RELATIVE = /^(?![a-z][a-z0-9+.-]*:|\/|\\|#|\?)./i;

/** A picture is shown if it is a file of the task; any other would tell its server who looks, and is a link. */
function mendImage(image: HTMLImageElement, place: Place | null, inert: Document): void {
  const source = image.getAttribute("src") ?? "";
  const path = place !== null && RELATIVE.test(source) ? pathFrom(place, source) : null;
  if (place !== null && path !== null && place.has(path)) {
    image.src = `${API}/tasks/${place.taskId}/files/content?inline=true&path=${encodeURIComponent(path)}`;
    image.setAttribute("loading", "lazy");
    return;
  }
  const link = inert.createElement("a");
  link.setAttribute("href", source);
  link.textContent = image.alt || source;
  image.replaceWith(link);
}

function mendLink(link: HTMLAnchorElement, place: Place | null): void {
  const to = link.getAttribute("href") ?? "";
  if (place !== null && RELATIVE.test(to)) {
    link.setAttribute("href", `#file=${encodeURIComponent(pathFrom(place, to))}`);
    return;
  }
  if (!/^(https?|mailto):/i.test(to)) link.removeAttribute("href");
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
}

/** Wide tables scroll by themselves, also for who has no mouse. */
function wrapTable(table: HTMLTableElement, inert: Document): void {
  const frame = inert.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  table.replaceWith(frame);
  frame.append(table);
}

/** `./a%20b.txt` as the file's path in the work_dir. */
function pathFrom({ folder = "" }: Place, address: string): string {
  const names: string[] = folder.split("/");
  for (const name of plain(address).split("/")) {
    if (name === "..") names.pop();
    else names.push(name);
  }
  return names.filter((name) => name !== "" && name !== ".").join("/");
}

function plain(address: string): string {
  try {
    return decodeURIComponent(address);
  } catch {
    return address;
  }
}
