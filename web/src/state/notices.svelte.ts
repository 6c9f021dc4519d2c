/** Tells somebody who looks elsewhere that a task has ended or asks: a number in the title, and a notification where that is allowed. */

import type { Status, Task } from "../api/types";
import { sayer } from "../i18n/index.svelte";
import { notices } from "../i18n/notices";
import { preferences } from "./preferences.svelte";
import { router } from "./router.svelte";

type Noted = Pick<Task, "id" | "goal" | "status" | "run" | "result" | "question">;
type Telling = "completed" | "failed" | "stopped" | "waiting";

const BODY_MOST = 160;
const say = sayer(notices);
const known = new Map<number, string>();
const told = new Set<number>();

/** Whoever learns of a task's state calls this: the poll of the list, the stream of the task's page. */
export function noteTask(task: Noted): void {
  const before = known.get(task.id);
  const state = `${task.run} ${task.status}`;
  known.set(task.id, state);
  // What was so already when it was first seen is no news.
  if (before === undefined || before === state || !document.hidden || !isTelling(task.status)) return;
  told.add(task.id);
  mark();
  notify(task, task.status);
}

/** Of a task that is gone. */
export function forgetTask(id: number): void {
  known.delete(id);
}

function isTelling(status: Status): status is Telling {
  return status !== "queued" && status !== "running";
}

function notify(task: Noted, status: Telling): void {
  if (!preferences.notifies || !canNotify() || Notification.permission !== "granted") return;
  const body = (status === "waiting" ? task.question?.question : null) ?? task.goal;
  const options = { body: body.slice(0, BODY_MOST), icon: "/favicon.svg", tag: `beray-${task.id}`, lang: document.documentElement.lang };
  try {
    const notification = new Notification(say(status, { id: task.id }), options);
    notification.onclick = () => {
      window.focus();
      router.go(`/tasks/${task.id}`);
      notification.close();
    };
  } catch {
    // Some phones have the class and refuse its use outside of a service worker: the title has the number.
  }
}

/** Whether this browser knows notifications. */
export function canNotify(): boolean {
  return "Notification" in window;
}

/** `(1) Title`; pages set their titles as they like, so the number is put back each time. */
function mark(): void {
  const plain = document.title.replace(/^\(\d+\) /, "");
  const title = told.size > 0 ? `(${told.size}) ${plain}` : plain;
  if (document.title !== title) document.title = title;
}

new MutationObserver(mark).observe(document.head, { childList: true, subtree: true, characterData: true });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  told.clear();
  mark();
});
