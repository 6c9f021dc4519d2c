/** What can be done with a task. */

import { call } from "../api/client";
import type { Status, Task } from "../api/types";

export type Said = { readonly content: string; readonly questionId: string | null; readonly key: string };

/** A message, an answer, or the goal of a further run. The same `key` is taken once, however often it is sent. */
export function sendMessage(taskId: number, { content, questionId, key }: Said): Promise<Task> {
  const body = questionId === null ? { content } : { content, question_id: questionId };
  return call<Task>("POST", `/tasks/${taskId}/messages`, { body, headers: { "Idempotency-Key": key } });
}

export function stopTask(taskId: number): Promise<{ readonly message: string; readonly status: Status }> {
  return call("POST", `/tasks/${taskId}/stop`);
}

/** A new task that is asked the same. */
export function rerunTask(task: Task, key: string): Promise<Task> {
  const body = { goal: task.goal, tools: task.tools };
  return call<Task>("POST", "/tasks/", { body, headers: { "Idempotency-Key": key } });
}

/** A key for one intent, however often it is tried. */
export function newKey(): string {
  // Not `randomUUID`, which a page that came over plain HTTP has not.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
