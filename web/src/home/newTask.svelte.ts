/** A task that is being made: its goal, what it may use, the files that go along; and how it is sent, once whatever happens. */

import { call } from "../api/client";
import { ApiError } from "../api/problem";
import type { NewTask as Body, Task } from "../api/types";
import type { Chosen } from "../files/dropped";
import { Uploads, type UploadItem } from "../files/uploads.svelte";
import { keepDraft, readDraft } from "./draft";

export const LIMITS = ["requests", "tool_calls", "tokens", "wall_seconds", "cost_usd"] as const;
export type Limit = (typeof LIMITS)[number];

/** Files that the server refused: each says why itself. */
export class FilesRefused extends Error {
  override readonly name = "FilesRefused";
}

export class NewTask {
  #goal = $state(readDraft());
  /** Empty: the server's default. */
  model = $state("");
  /** Null: the server's default set. */
  tools = $state.raw<readonly string[] | null>(null);
  /** As typed; empty: the operator's. */
  limits = $state<Record<Limit, string>>({ requests: "", tool_calls: "", tokens: "", wall_seconds: "", cost_usd: "" });
  uploads = $state.raw(new Uploads());
  #sent: { readonly content: string; readonly key: string } | null = null;
  #held: { readonly content: string; readonly task: Task } | null = null;
  #files = new Map<string, File>(); // those that go along, also the ones that have gone already

  get goal(): string {
    return this.#goal;
  }

  set goal(goal: string) {
    this.#goal = goal;
    keepDraft(goal);
  }

  get hasChoices(): boolean {
    return this.model !== "" || this.tools !== null || LIMITS.some((limit) => this.limits[limit] !== "");
  }

  attach(chosen: readonly Chosen[]): void {
    this.uploads.add(chosen);
    for (const { path, file } of this.uploads.items) this.#files.set(path, file);
  }

  detach(item: UploadItem): void {
    if (item.stage === "done" && this.#held !== null) this.#held = { ...this.#held, content: "" }; // it lies there already
    this.uploads.remove(item);
    this.#files.delete(item.path);
  }

  /** Create the task. After a failure the same call goes on where it was: no second task is made of the same content.
   *
   * @throws {FilesRefused} The task is there, held, until its files are mended or taken back.
   */
  async send(): Promise<Task> {
    if (this.uploads.items.length === 0 && this.#held === null) return this.#done(await this.#create({ isHeld: false }));
    if (this.#held === null && this.uploads.failed.length > 0) throw new FilesRefused(); // too large: no try will help
    const task = await this.#hold();
    await this.#upload(task);
    return this.#done(await this.#start(task));
  }

  #body({ isHeld }: { isHeld: boolean }): Body {
    const limits = Object.fromEntries(LIMITS.filter((name) => this.limits[name] !== "").map((name) => [name, Number(this.limits[name])]));
    return {
      goal: this.goal.trim(),
      tools: this.tools,
      ...(this.model ? { model: this.model } : {}),
      ...(Object.keys(limits).length > 0 ? { limits } : {}),
      ...(isHeld ? { hold: true } : {}),
    };
  }

  async #create({ isHeld }: { isHeld: boolean }): Promise<Task> {
    const body = this.#body({ isHeld });
    const content = JSON.stringify(body);
    if (this.#sent?.content !== content) this.#sent = { content, key: newKey() };
    return call<Task>("POST", "/tasks/", { body, headers: { "Idempotency-Key": this.#sent.key } });
  }

  /** The task that waits for its files; one of another content is taken away. */
  async #hold(): Promise<Task> {
    const content = JSON.stringify(this.#body({ isHeld: true }));
    if (this.#held?.content === content) return this.#held.task;
    if (this.#held !== null) await this.#letGo(this.#held.task);
    const task = await this.#create({ isHeld: true });
    this.#held = { content, task };
    return task;
  }

  async #letGo(task: Task): Promise<void> {
    await call("DELETE", `/tasks/${task.id}`).catch(() => undefined); // else it ends by itself after an hour
    this.#held = null;
    this.#sent = null;
    this.uploads.clear();
    this.uploads = new Uploads();
    this.uploads.add(Array.from(this.#files, ([path, file]) => ({ path, file })));
  }

  async #upload(task: Task): Promise<void> {
    this.uploads.begin(task.id, { isEmpty: true });
    for (const item of this.uploads.failed) this.uploads.retry(item);
    await this.uploads.settled();
    if (this.uploads.failed.length > 0) throw new FilesRefused();
  }

  async #start(task: Task): Promise<Task> {
    return call<Task>("POST", `/tasks/${task.id}/start`).catch((error: unknown) => {
      // An answer that was lost: it has been started by the try before.
      if (error instanceof ApiError && error.code === "task_already_started") return task;
      throw error;
    });
  }

  #done(task: Task): Task {
    this.#sent = null;
    this.#held = null;
    this.goal = "";
    this.#files.clear();
    this.uploads.clear();
    return task;
  }
}

/** 128 random bits. (`crypto.randomUUID` is there only over https and on this machine.) */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
