/** The user's tasks, kept fresh by one poll for whoever shows them: the rail, the start page, the list. */

import { untrack } from "svelte";
import { call, send } from "../api/client";
import { ApiError } from "../api/problem";
import type { Message, Status, Task } from "../api/types";
import { forgetTask, noteTask } from "./notices.svelte";

export type Filter = { readonly q: string; readonly statuses: readonly Status[] };

const PAGE = 20;
const FRESH_MOST = 200; // rows that a poll asks for; older ones stay as they were loaded
const SHOWN_MS = 10_000;
const HIDDEN_MS = 30_000;
const EVERYTHING: Filter = { q: "", statuses: [] };

/** The tasks that fit a filter, newest first, as far as they have been loaded. */
export class Listing {
  rows = $state.raw<readonly Task[]>([]);
  hasMore = $state(false);
  isLoaded = $state(false);
  isLoadingMore = $state(false);
  /** Why the last look failed; null after one that did not. */
  error = $state.raw<unknown>(null);
  #etag = "";
  #asked = "";
  #changes = 0; // what has been told since an answer was asked for makes that answer old

  constructor(readonly filter: Filter) {}

  /** Ask for what is shown anew. It never throws: `error` tells. */
  async refresh(): Promise<void> {
    const limit = Math.min(FRESH_MOST, Math.max(PAGE, this.rows.length));
    const changes = this.#changes;
    try {
      const response = await this.#page({ limit });
      if (response.status !== 304) {
        const fresh = (await response.json()) as readonly Task[];
        if (changes === this.#changes) this.#take(fresh, limit, hasNext(response));
        else this.#etag = "";
      }
      this.error = null;
      this.isLoaded = true;
    } catch (error) {
      this.error = error;
    }
  }

  /** The next older page. */
  async loadMore(): Promise<void> {
    const before = this.rows.at(-1)?.id;
    if (before === undefined || this.isLoadingMore) return;
    this.isLoadingMore = true;
    try {
      const response = await send("GET", "/tasks", { query: { ...this.#query, limit: PAGE, before }, signal: patience() });
      const older = (await response.json()) as readonly Task[];
      this.rows = [...this.rows, ...older.filter((task) => task.id < before)];
      this.hasMore = hasNext(response);
    } finally {
      this.isLoadingMore = false;
    }
  }

  /** What is known better than the last answer says. */
  put(task: Task): void {
    this.#changes += 1;
    if (this.rows.some((row) => row.id === task.id)) this.rows = this.rows.map((row) => (row.id === task.id ? task : row));
    else if (this.filter === EVERYTHING) this.rows = [task, ...this.rows].sort((one, other) => other.id - one.id);
  }

  remove(ids: ReadonlySet<number>): void {
    this.#changes += 1;
    this.rows = this.rows.filter((row) => !ids.has(row.id));
  }

  /** Keep the first page alone. */
  shorten(): void {
    if (this.rows.length <= PAGE) return;
    this.rows = this.rows.slice(0, PAGE);
    this.hasMore = true;
  }

  get #query() {
    return { q: this.filter.q || null, status: this.filter.statuses };
  }

  async #page({ limit }: { limit: number }): Promise<Response> {
    const headers: Record<string, string> = this.#etag && this.#asked === String(limit) ? { "If-None-Match": this.#etag } : {};
    const response = await send("GET", "/tasks", { query: { ...this.#query, limit }, headers, signal: patience() });
    this.#asked = String(limit);
    this.#etag = response.headers.get("etag") ?? "";
    return response;
  }

  #take(fresh: readonly Task[], limit: number, hasMore: boolean): void {
    const last = fresh.at(-1)?.id ?? 0;
    const older = hasMore && limit >= FRESH_MOST ? this.rows.filter((row) => row.id < last) : [];
    if (older.length === 0) this.hasMore = hasMore;
    this.rows = [...fresh, ...older];
    for (const task of fresh) noteTask(task);
  }
}

class Tasks {
  /** All of them; the rail shows the first page. */
  latest = $state.raw(new Listing(EVERYTHING));
  #views = new Set<Listing>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isFollowing = false;
  #isAsking = false;

  /** Begin to poll, for as long as somebody is logged in. Gives back what ends it and forgets the tasks. */
  follow(): () => void {
    const look = () => {
      if (!document.hidden) void this.refresh();
    };
    this.#isFollowing = true;
    untrack(() => void this.refresh());
    document.addEventListener("visibilitychange", look);
    addEventListener("focus", look);
    addEventListener("online", look);
    return () => {
      this.#isFollowing = false;
      clearTimeout(this.#timer);
      document.removeEventListener("visibilitychange", look);
      removeEventListener("focus", look);
      removeEventListener("online", look);
      this.latest = new Listing(EVERYTHING);
    };
  }

  /** Keep a filtered listing fresh too. Gives back what ends that. */
  watch(listing: Listing): () => void {
    this.#views.add(listing);
    untrack(() => void listing.refresh());
    return () => this.#views.delete(listing);
  }

  /** Ask now, and then again after the usual while. */
  async refresh(): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    clearTimeout(this.#timer);
    await Promise.all([...this.#views, this.latest].map((listing) => listing.refresh()));
    this.#isAsking = false;
    if (this.#isFollowing) this.#timer = setTimeout(() => void this.refresh(), this.#pause);
  }

  /** A task as it now is, known from elsewhere than the poll. */
  put(task: Task): void {
    noteTask(task);
    for (const listing of [...this.#views, this.latest]) listing.put(task);
  }

  /** As `put`, of what is known of it. */
  change(id: number, changes: Partial<Task>): void {
    const task = this.latest.rows.find((row) => row.id === id);
    if (task) this.put({ ...task, ...changes });
  }

  async stop(id: number): Promise<void> {
    const { status } = await call<{ status: Status }>("POST", `/tasks/${id}/stop`);
    for (const listing of [...this.#views, this.latest]) {
      const task = listing.rows.find((row) => row.id === id);
      if (task) listing.put({ ...task, status, stop_requested: true });
    }
  }

  async delete(id: number): Promise<Message> {
    const message = await call<Message>("DELETE", `/tasks/${id}`).catch((error: unknown) => {
      if (error instanceof ApiError && error.code === "task_not_found") return null; // it is gone, which was wanted
      throw error;
    });
    this.forget(id);
    return message ?? { message: "" };
  }

  /** A task that is gone. */
  forget(id: number): void {
    forgetTask(id);
    for (const listing of [...this.#views, this.latest]) listing.remove(new Set([id]));
  }

  get #pause(): number {
    const waits = [this.latest.error].map((error) => (error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0));
    return Math.max(document.hidden ? HIDDEN_MS : SHOWN_MS, ...waits);
  }
}

/** Whether a task has not ended yet. */
export function isActive(task: Pick<Task, "status">): boolean {
  return task.status === "queued" || task.status === "running" || task.status === "waiting";
}

/** Milliseconds of a task's work, up to `now` while it lasts; null before it has begun. */
export function elapsed(task: Pick<Task, "started_at" | "finished_at">, now: number): number | null {
  if (task.started_at === null) return null;
  const end = task.finished_at === null ? now : Date.parse(task.finished_at);
  return Math.max(0, end - Date.parse(task.started_at));
}

function hasNext(response: Response): boolean {
  return /rel="?next/.test(response.headers.get("link") ?? "");
}

function patience(): AbortSignal {
  return AbortSignal.timeout(SHOWN_MS * 2);
}

export const tasks = new Tasks();
