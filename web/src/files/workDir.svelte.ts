/** A task's work_dir as state: what is known of its folders, which are open, and when that is read anew. */

import { send } from "../api/client";
import type { FileNode } from "../api/types";
import { depthOf, findNode, listingsOf, parentOf, ROOT, type Listing, type Listings } from "./tree";

const ENTRIES = 1000; // of one answer; more on demand
const ENTRIES_MOST = 100_000; // that the server gives
const DEPTH_MOST = 16;
const AHEAD = 1; // levels read beyond what is open: a folder opens at once
const QUIET_MS = 700; // a program that writes a hundred files is one change
const ANSWER_MS = 30_000;
const KEPT = 4;

export class WorkDir {
  listings = $state.raw<Listings>(new Map());
  open = $state.raw<ReadonlySet<string>>(new Set());
  /** Why it could not be read; null: it could, or nobody tried. */
  fault = $state.raw<unknown>(null);
  isLoading = $state(false);
  readonly #limits = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStale = false;

  constructor(readonly taskId: number) {}

  get isLoaded(): boolean {
    return this.listings.has(ROOT);
  }

  /** Something changed: read it again soon, once for many changes. */
  note(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.refresh();
    }, QUIET_MS);
  }

  /** Read all that is shown again. */
  async refresh(): Promise<void> {
    if (this.isLoading) {
      this.#isStale = true; // what is being read may be from before the change
      return;
    }
    this.isLoading = true;
    try {
      do {
        this.#isStale = false;
        const listings = await this.#readAll();
        this.open = new Set([...this.open].filter((folder) => findNode(listings, folder)?.type === "directory"));
        this.listings = listings;
        this.fault = null;
      } while (this.#isStale);
    } catch (error) {
      this.fault = error;
    } finally {
      this.isLoading = false;
    }
  }

  /** Open a closed folder, close an open one. */
  toggle(folder: string): void {
    const open = new Set(this.open);
    if (open.delete(folder)) {
      this.open = open;
      return;
    }
    this.open = open.add(folder);
    void this.load(folder); // what is known of it is shown at once
  }

  /** Read one folder, as far as is wanted of it. */
  async load(folder: string): Promise<void> {
    try {
      const found = await this.#read(folder, 1 + AHEAD);
      this.listings = new Map([...this.listings, ...found]);
    } catch (error) {
      this.fault = error;
    }
  }

  /** Read more of a folder of which the server has told only a part. */
  async loadMore(folder: string): Promise<void> {
    this.#limits.set(folder, Math.min(this.#limit(folder) * 10, ENTRIES_MOST));
    await this.load(folder);
  }

  canLoadMore(folder: string): boolean {
    return this.#limit(folder) < ENTRIES_MOST;
  }

  #limit(folder: string): number {
    return this.#limits.get(folder) ?? ENTRIES;
  }

  async #readAll(): Promise<Listings> {
    const depth = Math.min(depthOf(this.open) + 1 + AHEAD, DEPTH_MOST);
    const listings = await this.#read(ROOT, depth);
    const opened = [...this.open].sort((one, other) => one.length - other.length);
    for (const folder of opened) {
      const isThere = findNode(listings, folder)?.type === "directory";
      const known = listings.get(folder);
      if (!isThere || (known && !(known.isCut && this.#limit(folder) > known.nodes.length))) continue;
      for (const [path, listing] of await this.#read(folder, 1 + AHEAD)) listings.set(path, listing);
    }
    return listings;
  }

  async #read(folder: string, depth: number): Promise<Map<string, Listing>> {
    const query = { path: folder, depth, limit: this.#limit(folder) };
    const response = await send("GET", `/tasks/${this.taskId}/files/tree`, { query, signal: AbortSignal.timeout(ANSWER_MS) });
    const nodes = (await response.json()) as FileNode[];
    const isCut = response.headers.get("BeRay-Truncated") === "true";
    return listingsOf(folder, nodes, isCut);
  }
}

const workDirs = new Map<number, WorkDir>();

/** The state of a task's work_dir: the same for all who show it. */
export function workDirOf(taskId: number): WorkDir {
  const workDir = workDirs.get(taskId) ?? new WorkDir(taskId);
  workDirs.delete(taskId);
  workDirs.set(taskId, workDir);
  const oldest = workDirs.keys().next().value;
  if (workDirs.size > KEPT && oldest !== undefined) workDirs.delete(oldest);
  return workDir;
}

/** Whether `path` was there when its folder was last read. */
export function isKnownIn(workDir: WorkDir, path: string): boolean {
  return workDir.listings.has(parentOf(path));
}
