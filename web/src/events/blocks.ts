/** What a task's timeline is made of. A block that has not changed stays the same object. */

import type { FileSize, PlanItem, Status, TaskError, Usage } from "../api/types";
import type { Output } from "./output";

type Base = {
  readonly key: string;
  /** The first event that it tells of. */
  readonly seq: number;
  /** The latest event that has changed it. */
  readonly last: number;
  readonly at: string;
};

/** The first run begins; its goal is the task's. */
export type GoalBlock = Base & { readonly kind: "goal" };

/** What the user has said; `isGoal`: it began the run with this number. */
export type MessageBlock = Base & { readonly kind: "message"; readonly content: string; readonly isGoal: boolean; readonly run: number };

/** `isResult`: the run has ended with exactly this text, which stands in its `FinishBlock`. */
export type TextBlock = Base & {
  readonly kind: "text";
  readonly messageId: string;
  readonly text: string;
  readonly isDone: boolean;
  readonly isResult: boolean;
};

/** `ended`: the run was over before the call was. */
export type CallStatus = "requested" | "running" | "ok" | "failed" | "ended";

export type CallBlock = Base & {
  readonly kind: "call";
  readonly callId: string;
  readonly name: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly title: string;
  readonly status: CallStatus;
  readonly startedAt: string | null;
  readonly output: Output;
  readonly summary: string;
  readonly exitCode: number | null;
  readonly durationMs: number | null;
};

export type PlanBlock = Base & { readonly kind: "plan"; readonly items: readonly PlanItem[] };

/** `closed`: nobody has answered, and nobody can any more. */
export type QuestionBlock = Base & {
  readonly kind: "question";
  readonly questionId: string;
  readonly question: string;
  readonly choices: readonly string[] | null;
  readonly status: "open" | "answered" | "closed";
  readonly answer: string | null;
};

export type RetryBlock = Base & { readonly kind: "retry"; readonly attempt: number; readonly waitSeconds: number; readonly code: string };

export type FallbackBlock = Base & { readonly kind: "fallback"; readonly from: string; readonly to: string; readonly code: string };

export type CompactionBlock = Base & {
  readonly kind: "compaction";
  readonly before: number;
  readonly after: number;
  readonly how: string;
};

/** Another worker has taken the run over. */
export type TakeoverBlock = Base & { readonly kind: "takeover"; readonly attempt: number };

export type FinishBlock = Base & {
  readonly kind: "finish";
  readonly run: number;
  readonly status: Status;
  readonly result: string | null;
  readonly error: TaskError | null;
  readonly usage: Usage;
  readonly files: readonly FileSize[];
  readonly filesTotal: number;
};

export type Block =
  | GoalBlock
  | MessageBlock
  | TextBlock
  | CallBlock
  | PlanBlock
  | QuestionBlock
  | RetryBlock
  | FallbackBlock
  | CompactionBlock
  | TakeoverBlock
  | FinishBlock;

export type BlockOf<K extends Block["kind"]> = Extract<Block, { readonly kind: K }>;
