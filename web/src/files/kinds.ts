/** What a file is, by its name: how it is shown, in which language it is highlighted, which sign it has. */

import type { IconName } from "../ui/icons";

export type Kind = "text" | "markdown" | "image" | "table" | "json" | "pdf" | "html" | "audio" | "video" | "archive" | "unknown";

const KINDS: Readonly<Record<Exclude<Kind, "text" | "unknown">, string>> = {
  markdown: "md markdown mdown",
  image: "png jpg jpeg gif webp avif bmp ico svg",
  table: "csv tsv",
  json: "json ipynb geojson webmanifest",
  pdf: "pdf",
  html: "html htm xhtml",
  audio: "mp3 wav ogg oga opus m4a flac aac",
  video: "mp4 webm ogv m4v mov",
  archive: "zip gz tgz bz2 xz zst tar 7z rar whl jar docx xlsx pptx odt ods odp epub parquet pkl npy npz pt onnx sqlite db so exe dll bin o a class pyc wasm woff woff2 ttf otf",
};

const KIND_OF: ReadonlyMap<string, Kind> = new Map(
  Object.entries(KINDS).flatMap(([kind, endings]) => endings.split(" ").map((ending) => [ending, kind as Kind] as const)),
);

/** highlight.js' name for a language, by the ending of a name. */
const LANGUAGES: Readonly<Record<string, string>> = {
  bash: "bash sh zsh ksh bashrc profile",
  c: "c h",
  cpp: "cpp cc cxx hpp hh hxx ino",
  csharp: "cs",
  css: "css",
  diff: "diff patch",
  dockerfile: "dockerfile containerfile",
  go: "go",
  graphql: "graphql gql",
  ini: "ini toml cfg conf properties editorconfig",
  java: "java",
  javascript: "js mjs cjs jsx",
  json: KINDS.json + " jsonl ndjson",
  kotlin: "kt kts",
  less: "less",
  lua: "lua",
  makefile: "mk makefile",
  markdown: KINDS.markdown,
  perl: "pl pm",
  php: "php",
  python: "py pyi pyw",
  r: "r",
  ruby: "rb rake gemfile",
  rust: "rs",
  scala: "scala",
  scss: "scss sass",
  sql: "sql",
  swift: "swift",
  typescript: "ts tsx mts cts",
  xml: "xml html htm xhtml svg xsl xsd plist vue svelte",
  yaml: "yaml yml",
};

const LANGUAGE_OF: ReadonlyMap<string, string> = new Map(
  Object.entries(LANGUAGES).flatMap(([language, endings]) => endings.split(" ").map((ending) => [ending, language] as const)),
);

/** What stands behind the last dot, in lower case; of `Makefile` and `.bashrc` the name. */
export function endingOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  return name.slice(name.lastIndexOf(".") + 1);
}

/** `unknown`: only its bytes tell whether it is text. */
export function kindOf(path: string): Kind {
  const ending = endingOf(path);
  return KIND_OF.get(ending) ?? (LANGUAGE_OF.has(ending) || ending === "txt" || ending === "log" || ending === "rst" ? "text" : "unknown");
}

/** null: it is not highlighted. */
export function languageOf(path: string): string | null {
  return LANGUAGE_OF.get(endingOf(path)) ?? null;
}

const ICONS: Readonly<Partial<Record<Kind, IconName>>> = { image: "image", archive: "archive", html: "globe", video: "play", audio: "play", table: "list" };

export function iconOf(path: string): IconName {
  return ICONS[kindOf(path)] ?? (languageOf(path) && kindOf(path) !== "markdown" ? "code" : "file");
}
