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

/** One argument, as code in a language or as plain text. */
export type Argument = { readonly name: string; readonly text: string; readonly language: string };

export function argumentsOf(call: CallBlock): readonly Argument[] {
  const path = pathOf(call);
  return Object.entries(call.args)
    .filter(([name]) => !(name === "path" && path !== null))
    .map(([name, value]) => ({
      name,
      text: typeof value === "string" ? value : JSON.stringify(value, null, 2),
      language: typeof value === "string" ? languageOfText(call.name, name, path) : "json",
    }));
}

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
