/** Files out of a drop, a paste or an <input>, with the folders they lie in. */

export type Chosen = {
  readonly file: File;
  /** Relative, `/`-separated; a file of a dropped folder keeps the folder's name. */
  readonly path: string;
};

export const FILES_MOST = 10_000; // a dropped `node_modules` has more, and nobody means that

/** Whether what is being dragged are files; text and links are none of ours. */
export function carriesFiles(transfer: DataTransfer | null): boolean {
  return transfer?.types.includes("Files") ?? false;
}

/** What was picked; a picked folder tells where each file lies in it. */
export function fromList(files: Iterable<File>): Chosen[] {
  return Array.from(files, (file) => chosen(file, file.webkitRelativePath || file.name));
}

/** What was dropped or pasted, folders walked. At most FILES_MOST and one more, so that the caller sees that there were more.
 *
 * Call it in the event itself: afterwards the browser has taken the items away.
 */
export async function fromTransfer(transfer: DataTransfer): Promise<Chosen[]> {
  const files = Array.from(transfer.files);
  const entries = Array.from(transfer.items, (item) => (item.kind === "file" ? item.webkitGetAsEntry() : null)).filter(
    (entry) => entry !== null,
  );
  if (entries.length === 0) return fromList(files); // a pasted picture has no entry
  const found: Chosen[] = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry: FileSystemEntry, found: Chosen[]): Promise<void> {
  if (found.length > FILES_MOST) return;
  if (isFile(entry)) {
    const file = await new Promise<File>((resolve, reject) => entry.file(resolve, reject));
    found.push(chosen(file, entry.fullPath.replace(/^\//, "")));
  } else if (isFolder(entry)) {
    for (const inner of await entriesOf(entry)) await walk(inner, found);
  }
}

/** All entries: a browser gives about 100 at a time. */
async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0 || all.length > FILES_MOST) return all;
    all.push(...some);
  }
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}

function isFolder(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory;
}

/** macOS tells names decomposed (e + ´); whoever types the name later types it composed. */
function chosen(file: File, path: string): Chosen {
  return { file, path: path.normalize("NFC") };
}

/** `a.png`, or `a (2).png` where another file of the same name goes along: pasted pictures are all called `image.png`. */
export function freePath(path: string, taken: ReadonlySet<string>): string {
  if (!taken.has(path)) return path;
  const dot = path.lastIndexOf(".");
  const cut = dot > path.lastIndexOf("/") + 1 ? dot : path.length;
  for (let count = 2; ; count += 1) {
    const other = `${path.slice(0, cut)} (${count})${path.slice(cut)}`;
    if (!taken.has(other)) return other;
  }
}
