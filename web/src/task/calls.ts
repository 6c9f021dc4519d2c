/** How tool calls are shown: their signs, and what of their arguments people want to read. */

import type { CallBlock } from "../events/blocks";
import type { IconName } from "../ui/icons";
import { languageOfFile } from "../ui/highlight";

const ICONS: Readonly<Record<string, IconName>> = {
  shell: "terminal",
  background: "terminal",
  python: "code",
  read_file: "file",
  write_file: "file",
  edit_file: "edit",
  list_files: "folder",
  search_files: "search",
  update_plan: "plan",
  ask_user: "ask",
  finish: "check",
  web_search: "globe",
  web_fetch: "globe",
};

export function iconOf(name: string): IconName {
  return ICONS[name] ?? (name.startsWith("web_") ? "globe" : "tool");
}

/** A call's title without its tool's name, which stands beside it. */
export function subjectOf(call: CallBlock): string {
  return call.title.startsWith(`${call.name} `) ? call.title.slice(call.name.length + 1) : call.title === call.name ? "" : call.title;
}

/** An argument that is read as code or as a text of its own. */
export type Long = { readonly name: string; readonly text: string; readonly language: string };

/** What a call was given, but for the path of a file, which stands above. */
export type Given = { readonly short: readonly (readonly [string, string])[]; readonly long: readonly Long[] };

const SHORT_CHARACTERS = 120;

export function givenTo(call: CallBlock): Given {
  const path = pathOf(call);
  const short: [string, string][] = [];
  const long: Long[] = [];
  for (const [name, value] of Object.entries(call.args)) {
    if (name === "path" && path !== null) continue;
    const language = typeof value === "string" ? languageOfText(call.name, name, path) : "json";
    const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
    const isShort = !text.includes("\n") && text.length <= SHORT_CHARACTERS && (language === "" || language === "json");
    if (isShort && !TEXTS.has(name)) short.push([name, text]);
    else long.push({ name, text, language });
  }
  return { short, long };
}

// Always worth a box of their own, however short.
const TEXTS: ReadonlySet<string> = new Set(["content", "old", "new", "command", "code"]);

function languageOfText(tool: string, name: string, path: string | null): string {
  if (tool === "shell" && name === "command") return "bash";
  if (tool === "python" && name === "code") return "python";
  return path !== null && name !== "pattern" && name !== "glob" ? (languageOfFile(path) ?? "") : "";
}

/** The file that a call is about. */
export function pathOf(call: CallBlock): string | null {
  const path = call.args["path"];
  const isOfFile = call.name === "read_file" || call.name === "write_file" || call.name === "edit_file";
  return isOfFile && typeof path === "string" ? path.replace(/^(\.\/+)+/, "") : null;
}
