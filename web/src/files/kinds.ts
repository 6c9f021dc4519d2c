/** What a file is, by its name: how it is shown, and which sign it has. */

import { languageOfFile } from "../ui/highlight";
import type { IconName } from "../ui/icons";

export type Kind = "text" | "markdown" | "image" | "table" | "json" | "pdf" | "html" | "audio" | "video" | "archive" | "unknown";

const ENDINGS: Readonly<Record<Exclude<Kind, "unknown">, string>> = {
  text: "txt log rst",
  markdown: "md markdown",
  image: "png jpg jpeg gif webp avif bmp ico svg",
  table: "csv tsv",
  json: "json ipynb geojson webmanifest",
  pdf: "pdf",
  html: "html htm",
  audio: "mp3 wav ogg oga opus m4a flac aac",
  video: "mp4 webm ogv m4v mov",
  archive:
    "zip gz tgz bz2 xz zst tar 7z rar whl jar docx xlsx pptx odt ods odp epub parquet pkl npy npz pt onnx sqlite db so exe dll bin o a class pyc wasm woff woff2 ttf otf",
};

const KIND_OF: ReadonlyMap<string, Kind> = new Map(
  Object.entries(ENDINGS).flatMap(([kind, endings]) => endings.split(" ").map((ending) => [ending, kind as Kind] as const)),
);

const ICONS: Readonly<Partial<Record<Kind, IconName>>> = {
  archive: "archive",
  audio: "play",
  html: "globe",
  image: "image",
  json: "code",
  table: "list",
  video: "play",
};

/** What stands behind the last dot, in lower case; "" if there is none. */
export function endingOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  return name.includes(".") ? name.slice(name.lastIndexOf(".") + 1) : "";
}

/** `unknown`: only its bytes tell whether it is text. */
export function kindOf(path: string): Kind {
  return KIND_OF.get(endingOf(path)) ?? (languageOfFile(path) ? "text" : "unknown");
}

/** The language to colour it in; null: none. */
export function colouredAs(path: string): string | null {
  return ["ipynb", "geojson", "webmanifest"].includes(endingOf(path)) ? "json" : languageOfFile(path);
}

export function iconOf(path: string): IconName {
  const kind = kindOf(path);
  return ICONS[kind] ?? (kind === "text" && languageOfFile(path) ? "code" : "file");
}
