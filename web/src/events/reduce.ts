/** A task as its events tell it: `(state, event) -> state`, pure. What has not changed stays the same object.
 *
 * Events that are repeated or come too late are passed by (by `seq`). A state may begin in the middle of a log: what its
 * first events belong to is then known in part, and exactly once it is made anew with the events before.
 */

import type { FileSize, PlanItem, Question, Status, Task, TaskError, Usage } from "../api/types";
import type { Block, BlockOf, CallBlock, CallStatus } from "./blocks";
import { grown, NO_OUTPUT } from "./output";
import type { Event, EventOf, EventType } from "./types";

/** One change of a file. `callId`: the call that made it. */
export type FileStep = {
  readonly change: "created" | "modified" | "deleted";
  readonly size: number;
  readonly seq: number;
  readonly callId: string | null;
};

/** How a file was changed last, and all its changes in order. */
export type FileChange = Omit<FileStep, "callId"> & { readonly steps: readonly FileStep[] };

/** A call of write_file or edit_file; long texts of `args` are cut by the server. `ok`: null until it is known. */
export type Edit = {
  readonly callId: string;
  readonly tool: "write_file" | "edit_file";
  readonly args: Readonly<Record<string, unknown>>;
  readonly seq: number;
  readonly ok: boolean | null;
};

export type TaskState = {
  readonly blocks: readonly Block[];
  /** The first event that is in here; 0: none yet. */
  readonly first: number;
  /** The latest. */
  readonly last: number;
  /** Null, as what follows: no event has told. */
  readonly status: Status | null;
  readonly stopRequested: boolean;
  readonly model: string | null;
  readonly modelKind: "model" | "rules" | null;
  readonly run: number;
  readonly attempt: number;
  /** When the run that is told of last began and ended. */
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  readonly usage: Usage | null;
  readonly question: Question | null;
  readonly plan: readonly PlanItem[];
  readonly result: string | null;
  readonly error: TaskError | null;
  /** How each file was changed last, by path. */
  readonly files: ReadonlyMap<string, FileChange>;
  /** The edits of each file, in order. */
  readonly edits: ReadonlyMap<string, readonly Edit[]>;
  /** The call that ended last: the changes that it made to files follow its end. */
  readonly lastCall: string | null;
  /** Those there were at the end of the last run, as far as they were named. */
  readonly finalFiles: readonly FileSize[];
  /** Events of types that this console does not know. */
  readonly unknown: number;
};

export const initialState: TaskState = {
  blocks: [],
  first: 0,
  last: 0,
  status: null,
  stopRequested: false,
  model: null,
  modelKind: null,
  run: 0,
  attempt: 0,
  startedAt: null,
  finishedAt: null,
  usage: null,
  question: null,
  plan: [],
  result: null,
  error: null,
  files: new Map(),
  edits: new Map(),
  lastCall: null,
  finalFiles: [],
  unknown: 0,
};

export function reduce(state: TaskState, event: Event): TaskState {
  return reduceAll(state, [event]);
}

/** As `reduce` for each event in turn; copies what changes once for all of them. */
export function reduceAll(state: TaskState, events: readonly Event[]): TaskState {
  if ((events.at(-1)?.seq ?? 0) <= state.last) return state;
  const draft = new Draft(state);
  for (const event of events) {
    if (event.seq > draft.state.last) apply(draft, event);
  }
  return draft.state;
}

/** `state` with what no event of it has told, from the task as the server showed it. */
export function withTask(state: TaskState, task: Task): TaskState {
  if (state.first === 1) return state;
  const isSameRun = state.run === 0 || state.run === task.run;
  return {
    ...state,
    status: state.status ?? task.status,
    stopRequested: state.status === null ? task.stop_requested : state.stopRequested,
    model: state.model ?? task.model,
    modelKind: state.modelKind ?? task.model_kind,
    run: state.run || task.run,
    attempt: state.attempt || task.attempt,
    startedAt: state.startedAt ?? (isSameRun ? task.started_at : null),
    finishedAt: state.finishedAt ?? (isSameRun ? task.finished_at : null),
    usage: state.usage ?? task.usage,
    question: state.question ?? openQuestion(state, task),
  };
}

function openQuestion(state: TaskState, task: Task): Question | null {
  const isWaiting = (state.status ?? task.status) === "waiting" && state.last <= task.last_seq;
  return isWaiting ? (task.question as Question | null) : null;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** A state under construction: shares everything with the one that it came from until it is changed. */
class Draft {
  readonly state: Writable<TaskState>;
  #blocks: Block[] | null = null;
  #files: Map<string, FileChange> | null = null;
  #edits: Map<string, readonly Edit[]> | null = null;

  constructor(state: TaskState) {
    this.state = { ...state };
  }

  add(block: Block): void {
    this.#own().push(block);
  }

  /** Replace what is at `at`. */
  put(at: number, block: Block): void {
    this.#own()[at] = block;
  }

  remove(at: number): void {
    this.#own().splice(at, 1);
  }

  /** Where the latest block of a kind is that fits; -1: nowhere. What is looked for is mostly near the end. */
  find<K extends Block["kind"]>(kind: K, fits: (block: BlockOf<K>) => boolean): number {
    return this.state.blocks.findLastIndex((block) => block.kind === kind && fits(block as BlockOf<K>));
  }

  at<K extends Block["kind"]>(index: number, kind: K): BlockOf<K> {
    const block = this.state.blocks[index];
    if (block?.kind !== kind) throw new Error(`no ${kind} at ${index}`);
    return block as BlockOf<K>;
  }

  setFile(path: string, change: FileChange): void {
    this.#files ??= new Map(this.state.files);
    this.#files.set(path, change);
    this.state.files = this.#files;
  }

  setEdits(path: string, edits: readonly Edit[]): void {
    this.#edits ??= new Map(this.state.edits);
    this.#edits.set(path, edits);
    this.state.edits = this.#edits;
  }

  #own(): Block[] {
    this.#blocks ??= [...this.state.blocks];
    this.state.blocks = this.#blocks;
    return this.#blocks;
  }
}

type Handlers = { readonly [T in EventType]: (draft: Draft, event: EventOf<T>) => void };

const HANDLERS: Handlers = {
  "task.created": (draft, event) => {
    takeStatus(draft, event);
    draft.add({ ...begun(event), kind: "goal" });
  },
  "task.started": (draft, event) => {
    takeStatus(draft, event);
    draft.state.startedAt ??= event.at;
    if (event.attempt > 1) draft.add({ ...begun(event), kind: "takeover", attempt: event.attempt });
  },
  "task.status": (draft, event) => {
    takeStatus(draft, event);
    if (event.status === "queued" && event.run > 1) beginRun(draft, event);
    if (event.status !== "waiting") closeQuestion(draft, event.seq);
  },
  "step.started": (draft, event) => void (draft.state.usage = event.usage),
  "step.finished": (draft, event) => void (draft.state.usage = event.usage),
  "usage.updated": (draft, event) => void (draft.state.usage = event.usage),
  "text.delta": (draft, event) => growText(draft, event),
  "text.done": (draft, event) => endText(draft, event),
  "text.reset": (draft, event) => {
    const at = findText(draft, event.message_id);
    if (at >= 0) draft.remove(at);
  },
  "tool.requested": (draft, event) => showCall(draft, event, "requested"),
  "tool.started": (draft, event) => showCall(draft, event, "running"),
  "tool.output": (draft, event) => {
    const at = callAt(draft, event);
    const call = draft.at(at, "call");
    draft.put(at, { ...call, last: event.seq, output: grown(call.output, event.delta, event.truncated) });
  },
  "tool.finished": (draft, event) => endCall(draft, event),
  "file.changed": (draft, event) => noteFile(draft, event),
  "plan.updated": (draft, event) => showPlan(draft, event),
  "input.requested": (draft, event) => {
    const { question_id, question, choices } = event;
    draft.state.question = { question_id, question, choices };
    draft.add({ ...begun(event), kind: "question", questionId: question_id, question, choices, status: "open", answer: null });
  },
  "input.received": (draft, event) => takeInput(draft, event),
  "model.retry": (draft, event) =>
    draft.add({ ...begun(event), kind: "retry", attempt: event.attempt, waitSeconds: event.wait_s, code: event.code }),
  "model.fallback": (draft, event) =>
    draft.add({ ...begun(event), kind: "fallback", from: event.from, to: event.to, code: event.code }),
  "context.compacted": (draft, event) =>
    draft.add({ ...begun(event), kind: "compaction", before: event.before, after: event.after, how: event.how }),
  error: (draft, event) => {
    const { code, message, hint, retryable, budget } = event;
    draft.state.error = { code, message, hint, retryable, ...(budget && { budget }) };
  },
  "task.finished": (draft, event) => finish(draft, event),
};

function apply(draft: Draft, event: Event): void {
  const handler = Object.hasOwn(HANDLERS, event.type) ? (HANDLERS[event.type] as (draft: Draft, event: Event) => void) : null;
  if (handler === null) draft.state.unknown += 1;
  else handler(draft, event);
  draft.state.first ||= event.seq;
  draft.state.last = event.seq;
}

function begun(event: Event): { readonly key: string; readonly seq: number; readonly last: number; readonly at: string } {
  return { key: `${event.type}-${event.seq}`, seq: event.seq, last: event.seq, at: event.at };
}

// ---- the task's state

function takeStatus(draft: Draft, event: EventOf<"task.created" | "task.started" | "task.status">): void {
  const { state } = draft;
  state.status = event.status;
  state.stopRequested = event.stop_requested;
  state.model = event.model;
  state.modelKind = event.model_kind;
  state.run = event.run;
  state.attempt = event.attempt;
}

/** A further run: what the user has said just before is its goal. */
function beginRun(draft: Draft, event: EventOf<"task.status">): void {
  const { state } = draft;
  const at = draft.find("message", (block) => block.seq === event.seq - 1);
  if (at >= 0) draft.put(at, { ...draft.at(at, "message"), last: event.seq, isGoal: true, run: event.run });
  state.startedAt = state.finishedAt = state.result = state.error = null;
  state.plan = [];
}

function finish(draft: Draft, event: EventOf<"task.finished">): void {
  const { state } = draft;
  const { status, result, error, usage, files } = event;
  Object.assign(state, { status, result, error, usage, finalFiles: files, finishedAt: event.at, stopRequested: false });
  closeQuestion(draft, event.seq);
  endOpenBlocks(draft, event);
  draft.add({ ...begun(event), kind: "finish", run: state.run, status, result, error, usage, files, filesTotal: event.files_total });
}

/** Calls and texts that the run's end has cut; and the last text, if it is the result. */
function endOpenBlocks(draft: Draft, event: EventOf<"task.finished">): void {
  const { blocks } = draft.state;
  let mayBeResult = event.result !== null;
  for (let at = blocks.length - 1; at >= 0; at -= 1) {
    const block = blocks[at];
    if (!block || block.kind === "finish") break;
    if (block.kind === "call" && isOpen(block)) draft.put(at, { ...block, last: event.seq, status: "ended" });
    if (block.kind !== "text") continue;
    const isResult = mayBeResult && block.text.trim() === event.result?.trim();
    mayBeResult = false;
    if (isResult || !block.isDone) draft.put(at, { ...block, last: event.seq, isDone: true, isResult });
  }
}

// ---- texts

function findText(draft: Draft, messageId: string): number {
  return draft.find("text", (block) => block.messageId === messageId);
}

function growText(draft: Draft, event: EventOf<"text.delta">): void {
  const at = findText(draft, event.message_id);
  if (at < 0) return addText(draft, event, { text: event.delta, isDone: false });
  const block = draft.at(at, "text");
  draft.put(at, { ...block, last: event.seq, text: block.text + event.delta });
}

function endText(draft: Draft, event: EventOf<"text.done">): void {
  const at = findText(draft, event.message_id);
  if (at < 0) return addText(draft, event, { text: event.text, isDone: true });
  draft.put(at, { ...draft.at(at, "text"), last: event.seq, text: event.text, isDone: true });
}

function addText(draft: Draft, event: EventOf<"text.delta" | "text.done">, said: { text: string; isDone: boolean }): void {
  draft.add({ ...begun(event), key: `text-${event.message_id}`, kind: "text", messageId: event.message_id, isResult: false, ...said });
}

// ---- calls

type OfCall = EventOf<"tool.requested" | "tool.started" | "tool.output" | "tool.finished">;

export function isOpen(call: CallBlock): boolean {
  return call.status === "requested" || call.status === "running";
}

/** Where the call of an event is; one whose beginning is not known is added. */
function callAt(draft: Draft, event: OfCall): number {
  const at = draft.find("call", (block) => block.callId === event.call_id);
  if (at >= 0) return at;
  const isTold = "name" in event;
  draft.add({
    ...begun(event),
    key: `call-${event.call_id}`,
    kind: "call",
    callId: event.call_id,
    name: isTold ? event.name : "",
    args: isTold ? event.args : {},
    title: isTold ? event.title : "",
    status: event.type === "tool.requested" ? "requested" : "running",
    startedAt: event.type === "tool.started" ? event.at : null,
    output: NO_OUTPUT,
    summary: "",
    exitCode: null,
    durationMs: null,
  });
  return draft.state.blocks.length - 1;
}

function showCall(draft: Draft, event: EventOf<"tool.requested" | "tool.started">, status: CallStatus): void {
  const at = callAt(draft, event);
  const call = draft.at(at, "call");
  const { name, args, title } = event;
  const startedAt = status === "running" ? event.at : call.startedAt;
  draft.put(at, { ...call, last: event.seq, name, args, title, status, startedAt });
  noteEdit(draft, event);
}

function endCall(draft: Draft, event: EventOf<"tool.finished">): void {
  draft.state.lastCall = event.call_id;
  const at = callAt(draft, event);
  const call = draft.at(at, "call");
  draft.put(at, {
    ...call,
    last: event.seq,
    status: event.ok ? "ok" : "failed",
    summary: event.summary,
    exitCode: event.exit_code,
    durationMs: event.duration_ms,
    output: event.truncated ? { ...call.output, isTruncated: true } : call.output,
  });
  const path = editedPath(call.name, call.args);
  if (path !== null) settleEdit(draft, path, event);
}

// ---- files and edits

function noteFile(draft: Draft, event: EventOf<"file.changed">): void {
  const { change, size, seq } = event;
  const steps = draft.state.files.get(event.path)?.steps ?? [];
  draft.setFile(event.path, { change, size, seq, steps: [...steps, { change, size, seq, callId: draft.state.lastCall }] });
}

const EDITORS: ReadonlySet<string> = new Set(["write_file", "edit_file"]);

/** The file that a call edits, as events name it; null: it is no such call. */
function editedPath(name: string, args: CallBlock["args"]): string | null {
  const path = args["path"];
  return EDITORS.has(name) && typeof path === "string" ? path.replace(/^(\.\/+)+/, "") : null;
}

function noteEdit(draft: Draft, event: EventOf<"tool.requested" | "tool.started">): void {
  const path = editedPath(event.name, event.args);
  if (path === null) return;
  const edits = draft.state.edits.get(path) ?? [];
  if (edits.some((edit) => edit.callId === event.call_id)) return;
  const tool = event.name as Edit["tool"];
  draft.setEdits(path, [...edits, { callId: event.call_id, tool, args: event.args, seq: event.seq, ok: null }]);
}

function settleEdit(draft: Draft, path: string, event: EventOf<"tool.finished">): void {
  const edits = draft.state.edits.get(path) ?? [];
  draft.setEdits(
    path,
    edits.map((edit) => (edit.callId === event.call_id ? { ...edit, ok: event.ok } : edit)),
  );
}

// ---- plan, questions, messages

/** A run has one plan, which stands where it was shown first. */
function showPlan(draft: Draft, event: EventOf<"plan.updated">): void {
  draft.state.plan = event.items;
  const begins = draft.find("finish", () => true);
  const at = draft.find("plan", () => true);
  if (at > begins) draft.put(at, { ...draft.at(at, "plan"), last: event.seq, items: event.items });
  else draft.add({ ...begun(event), kind: "plan", items: event.items });
}

function takeInput(draft: Draft, event: EventOf<"input.received">): void {
  const { question_id: questionId, content } = event;
  const at = questionId === null ? -1 : draft.find("question", (block) => block.questionId === questionId);
  if (questionId !== null) draft.state.question = null;
  if (at >= 0) draft.put(at, { ...draft.at(at, "question"), last: event.seq, status: "answered", answer: content });
  else draft.add({ ...begun(event), kind: "message", content, isGoal: false, run: draft.state.run });
}

function closeQuestion(draft: Draft, seq: number): void {
  draft.state.question = null;
  const at = draft.find("question", () => true);
  if (at < 0) return;
  const block = draft.at(at, "question");
  if (block.status === "open") draft.put(at, { ...block, last: seq, status: "closed" });
}
