/** Uploads as state: what was chosen, what is on its way and how far, what the server refused and why.
 *
 * On a task's page each file goes as soon as it is chosen: `new Uploads()`, `begin(taskId)`, `add(...)`. Before there is a task
 * (the first page's composer) files are only chosen: `add(...)`; then a task is created with `hold`, `begin(taskId, { isEmpty: true })`,
 * `await settled()`; if `failed` is empty the task is started.
 */

import { call } from "../api/client";
import { ApiError } from "../api/problem";
import type { FileNode } from "../api/types";
import { bytes } from "../i18n/formats.svelte";
import { files as words } from "../i18n/files";
import { sayer } from "../i18n/index.svelte";
import { told } from "../state/errors.svelte";
import { server } from "../state/server.svelte";
import { FILES_MOST, freePath, type Chosen } from "./dropped";
import { pathsOf } from "./tree";
import { upload } from "./upload";

const AT_A_TIME = 3; // a browser opens six connections to a server, and the page needs some itself

const say = sayer(words);

/** `chosen`: there is no task yet; `exists`: a file is there, the user decides. */
export type UploadStage = "chosen" | "waiting" | "sending" | "exists" | "done" | "failed" | "cancelled";

/** One file on its way. */
export class UploadItem {
  stage = $state<UploadStage>("chosen");
  sentBytes = $state(0);
  /** Why it failed, for people. */
  error = $state("");
  replaces = false;
  abort = new AbortController();

  constructor(
    readonly id: number,
    readonly path: string,
    readonly file: File,
  ) {}

  /** Of 1. */
  get progress(): number {
    if (this.stage === "done") return 1;
    return this.file.size === 0 ? 0 : Math.min(this.sentBytes / this.file.size, 1);
  }
}

export class Uploads {
  items = $state.raw<readonly UploadItem[]>([]);
  #taskId: number | null = null;
  #isEmpty = false;
  #nextId = 1;
  #sending = $state(0);
  #looking = 0;
  #queue: UploadItem[] = [];
  #waiters: (() => void)[] = [];
  #onwritten: (path: string) => void;

  /** `onwritten` is told of each file that has come to lie in the work_dir. */
  constructor(onwritten: (path: string) => void = () => undefined) {
    this.#onwritten = onwritten;
  }

  get failed(): readonly UploadItem[] {
    return this.items.filter((item) => item.stage === "failed");
  }

  get existing(): readonly UploadItem[] {
    return this.items.filter((item) => item.stage === "exists");
  }

  get isBusy(): boolean {
    return this.#sending > 0 || this.items.some((item) => item.stage === "waiting" || item.stage === "sending");
  }

  /** Choose files; once there is a task they go at once. Those that were done before make room. */
  add(chosen: readonly Chosen[]): void {
    const kept = this.items.filter((item) => item.stage !== "done" && item.stage !== "cancelled");
    const taken = new Set(kept.map((item) => item.path));
    const added = chosen.slice(0, FILES_MOST).map(({ file, path }) => {
      const item = new UploadItem(this.#nextId++, freePath(path, taken), file);
      taken.add(item.path);
      return item;
    });
    this.items = [...kept, ...added];
    this.#refuseTooLarge(added);
    if (this.#taskId !== null) void this.#enqueue(added);
  }

  /** Take back what was not sent yet, or stop what is being sent. */
  remove(item: UploadItem): void {
    item.abort.abort();
    item.stage = "cancelled";
    this.items = this.items.filter((one) => one !== item);
    this.#pump();
  }

  /** From now on files go to this task; `isEmpty`: it was just made, nothing can be in the way. */
  begin(taskId: number, { isEmpty = false }: { isEmpty?: boolean } = {}): void {
    this.#taskId = taskId;
    this.#isEmpty = isEmpty;
    void this.#enqueue(this.items.filter((item) => item.stage === "chosen"));
  }

  /** Another try of one that failed, or the first of one that was refused because a file is there (`replaces`). */
  retry(item: UploadItem, { replaces = item.replaces }: { replaces?: boolean } = {}): void {
    item.replaces = replaces;
    item.abort = new AbortController();
    item.sentBytes = 0;
    item.error = "";
    item.stage = "waiting";
    this.#refuseTooLarge([item]);
    if (item.stage === "waiting") this.#queue.push(item);
    this.#pump();
  }

  replaceAll(): void {
    for (const item of this.existing) this.retry(item, { replaces: true });
  }

  skipAll(): void {
    for (const item of this.existing) this.remove(item);
  }

  /** Stop all and forget it. */
  clear(): void {
    for (const item of this.items) item.abort.abort();
    this.items = [];
    this.#queue = [];
    this.#pump();
  }

  /** Resolves once nothing waits or is being sent: all are done, failed, cancelled, or the user is asked. */
  settled(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.#pump();
    });
  }

  #refuseTooLarge(items: readonly UploadItem[]): void {
    const most = server.info?.limits.upload_bytes;
    if (most === undefined) return;
    for (const item of items) {
      if (item.file.size <= most) continue;
      item.stage = "failed";
      item.error = say("tooLarge", { size: bytes(item.file.size), most: bytes(most) });
    }
  }

  async #enqueue(items: readonly UploadItem[]): Promise<void> {
    const ready = items.filter((item) => item.stage === "chosen");
    for (const item of ready) item.stage = "waiting";
    this.#looking += 1;
    try {
      const there = await this.#pathsThere();
      for (const item of ready) {
        if (item.stage !== "waiting") continue;
        if (there.has(item.path)) item.stage = "exists";
        else this.#queue.push(item);
      }
    } finally {
      this.#looking -= 1;
      this.#pump();
    }
  }

  /** What is there already, so that nobody sends a gigabyte to be told so. The server's word at the end is what counts. */
  async #pathsThere(): Promise<ReadonlySet<string>> {
    if (this.#isEmpty) return new Set();
    return call<FileNode[]>("GET", `/tasks/${this.#taskId}/files/tree`).then(pathsOf, () => new Set<string>());
  }

  #pump(): void {
    while (this.#sending < AT_A_TIME) {
      const item = this.#queue.shift();
      if (item === undefined) break;
      if (item.stage === "waiting") void this.#send(item);
    }
    if (this.#sending > 0 || this.#looking > 0) return;
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  async #send(item: UploadItem): Promise<void> {
    this.#sending += 1;
    item.stage = "sending";
    const { path, file: content, replaces } = item;
    const onprogress = (sentBytes: number): void => void (item.sentBytes = sentBytes);
    try {
      await upload({ taskId: this.#taskId ?? 0, path, content, replaces, onprogress, signal: item.abort.signal });
      item.stage = "done";
      this.#onwritten(path);
    } catch (error) {
      if (!item.abort.signal.aborted) this.#note(item, error);
    } finally {
      this.#sending -= 1;
      this.#pump();
    }
  }

  #note(item: UploadItem, error: unknown): void {
    if (error instanceof ApiError && error.code === "precondition_failed") {
      item.stage = "exists";
      return;
    }
    item.stage = "failed";
    item.error = told(error);
  }
}
