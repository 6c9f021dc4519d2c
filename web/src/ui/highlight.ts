/** Colours for code, each language loaded when it is met first. */

import type { LanguageFn } from "highlight.js";

type Loader = () => Promise<{ default: LanguageFn }>;

const LANGUAGES: Readonly<Record<string, Loader>> = {
  bash: () => import("highlight.js/lib/languages/bash"),
  c: () => import("highlight.js/lib/languages/c"),
  cpp: () => import("highlight.js/lib/languages/cpp"),
  csharp: () => import("highlight.js/lib/languages/csharp"),
  css: () => import("highlight.js/lib/languages/css"),
  diff: () => import("highlight.js/lib/languages/diff"),
  dockerfile: () => import("highlight.js/lib/languages/dockerfile"),
  go: () => import("highlight.js/lib/languages/go"),
  ini: () => import("highlight.js/lib/languages/ini"),
  java: () => import("highlight.js/lib/languages/java"),
  javascript: () => import("highlight.js/lib/languages/javascript"),
  json: () => import("highlight.js/lib/languages/json"),
  kotlin: () => import("highlight.js/lib/languages/kotlin"),
  lua: () => import("highlight.js/lib/languages/lua"),
  makefile: () => import("highlight.js/lib/languages/makefile"),
  markdown: () => import("highlight.js/lib/languages/markdown"),
  php: () => import("highlight.js/lib/languages/php"),
  python: () => import("highlight.js/lib/languages/python"),
  r: () => import("highlight.js/lib/languages/r"),
  ruby: () => import("highlight.js/lib/languages/ruby"),
  rust: () => import("highlight.js/lib/languages/rust"),
  sql: () => import("highlight.js/lib/languages/sql"),
  swift: () => import("highlight.js/lib/languages/swift"),
  typescript: () => import("highlight.js/lib/languages/typescript"),
  xml: () => import("highlight.js/lib/languages/xml"),
  yaml: () => import("highlight.js/lib/languages/yaml"),
};

const ALIASES: Readonly<Record<string, string>> = {
  cc: "cpp",
  "c++": "cpp",
  cs: "csharp",
  console: "bash",
  docker: "dockerfile",
  golang: "go",
  h: "c",
  hpp: "cpp",
  htm: "xml",
  html: "xml",
  js: "javascript",
  jsx: "javascript",
  kt: "kotlin",
  make: "makefile",
  md: "markdown",
  mjs: "javascript",
  patch: "diff",
  py: "python",
  python3: "python",
  rb: "ruby",
  rs: "rust",
  sh: "bash",
  shell: "bash",
  svelte: "xml",
  svg: "xml",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  vue: "xml",
  yml: "yaml",
  zsh: "bash",
};

const MOST_CHARACTERS = 200_000; // beyond, colours cost more than they tell

/** The language that a name or a file's ending stands for; null: none that is known. */
export function languageOf(name: string): string | null {
  const plain = name.trim().toLowerCase();
  const language = ALIASES[plain] ?? plain;
  return Object.hasOwn(LANGUAGES, language) ? language : null;
}

/** The language of a file, by its name. */
export function languageOfFile(path: string): string | null {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  if (name === "dockerfile" || name === "makefile") return name;
  return name.includes(".") ? languageOf(name.slice(name.lastIndexOf(".") + 1)) : null;
}

/** `code` as HTML with coloured spans, all else escaped; null: it stays as it is. */
export async function highlighted(code: string, language: string): Promise<string | null> {
  const load = LANGUAGES[language];
  if (!load || code.length > MOST_CHARACTERS) return null;
  const [{ default: core }, { default: grammar }] = await Promise.all([import("highlight.js/lib/core"), load()]);
  if (!core.getLanguage(language)) core.registerLanguage(language, grammar);
  return core.highlight(code, { language, ignoreIllegals: true }).value;
}
