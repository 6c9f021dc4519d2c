/** One task as its page shows it: opened by its latest events, kept up to date by its stream, older events on demand. */

import { call } from "../api/client";
import { ApiError } from "../api/problem";
import type { Status, Task, TaskWithEvents } from "../api/types";
import { initialState, reduceAll, withTask, type TaskState } from "../events/reduce";
import { settled } from "../events/settle";
import { readEvents, TaskEvents, type Connection } from "../events/stream";
import type { Event } from "../events/types";

const TAIL = 300; // events that a page opens with
const PAGE = 600; // older ones that are fetched at once
const MOST_KEPT = 60_000; // beyond, the oldest are let go: what they came to stays
const ENDED: ReadonlySet<Status> = new Set(["completed", "failed", "stopped"]);

export class TaskStream {
  readonly taskId: number;
  /** As it was when the page was opened or an action answered last; null until then. */
  task = $state.raw<Task | null>(null);
  state = $state.raw<TaskState>(initialState);
  connection = $state<Connection>("connecting");
  /** There is no such task, or it has been deleted. */
  isMissing = $state(false);
  /** Why it could not be opened. */
  fault = $state.raw<unknown>(null);
  isLoadingEarlier = $state(false);
  /** A stop has been asked for here, and not been heard of in an event yet. */
  #hasAskedToStop = $state(false);

  #events: Event[] = [];
  #arrived: Event[] = [];
  #frame = 0;
  #stream: TaskEvents;
  #abort = new AbortController();

  constructor(taskId: number) {
    this.taskId = taskId;
    this.#stream = new TaskEvents({
      taskId,
      last: () => this.#arrived.at(-1)?.seq ?? this.state.last,
      isAtEnd: () => this.hasEnded,
      onEvents: (events) => this.#take(events),
      onConnection: (connection) => {
        this.connection = connection;
      },
      onRefused: (error) => this.#refuse(error),
    });
  }

  get status(): Status | null {
    return this.state.status ?? this.task?.status ?? null;
  }

  get hasEnded(): boolean {
    return this.status !== null && ENDED.has(this.status);
  }

  get isStopping(): boolean {
    return !this.hasEnded && (this.#hasAskedToStop || this.state.stopRequested);
  }

  get hasEarlier(): boolean {
    return this.state.first > 1;
  }

  /** The task's latest events, and from then on what happens. */
  async open(): Promise<void> {
    this.fault = null;
    try {
      const query = { events: `tail:${TAIL}` };
      const { events, ...task } = await call<TaskWithEvents>("GET", `/tasks/${this.taskId}`, { query, signal: this.#abort.signal });
      this.task = task;
      this.#events = (events ?? []) as unknown as Event[];
      this.#rebuild();
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#refuse(error);
      return;
    }
    this.resume();
  }

  close(): void {
    this.#abort.abort();
    this.#stream.close();
    cancelAnimationFrame(this.#frame);
  }

  /** Hold the stream while somebody looks: browsers open six connections to a server, for all tabs together. */
  resume(): void {
    if (this.task === null || this.isMissing || this.#abort.signal.aborted) return;
    if (document.visibilityState === "visible") this.#stream.resume();
  }

  pause(): void {
    this.#stream.close();
    this.#flush();
  }

  /** What an action answered. */
  accept(task: Task): void {
    this.task = task;
    this.resume();
  }

  askedToStop(hasAsked: boolean): void {
    this.#hasAskedToStop = hasAsked;
  }

  /** One page of older events. */
  loadEarlier(): Promise<void> {
    return this.loadFrom(this.state.first - PAGE);
  }

  /** All events from this one on. */
  async loadFrom(seq: number): Promise<void> {
    const first = Math.max(1, seq);
    const known = this.#events[0]?.seq ?? this.state.last + 1;
    if (this.isLoadingEarlier || this.state.first <= first) return;
    this.isLoadingEarlier = true;
    try {
      const earlier = await this.#read(first, known - 1);
      if ((this.#events[0]?.seq ?? known) !== known) return; // some were let go meanwhile
      this.#events = [...earlier, ...this.#events];
      this.#rebuild();
    } finally {
      this.isLoadingEarlier = false;
    }
  }

  /** Every event there is, also those that were let go. */
  async allEvents(): Promise<readonly Event[]> {
    const known = this.#events[0]?.seq ?? this.state.last + 1;
    return known === 1 ? this.#events : [...(await this.#read(1, known - 1)), ...this.#events];
  }

  async #read(first: number, last: number): Promise<Event[]> {
    const read: Event[] = [];
    if (first > last) return read;
    for await (const events of readEvents(this.taskId, { after: first - 1, signal: this.#abort.signal })) {
      for (const event of events) if (event.seq <= last) read.push(event);
      if ((events.at(-1)?.seq ?? 0) >= last) break;
    }
    return read;
  }

  #take(events: readonly Event[]): void {
    this.#arrived.push(...events);
    // A hidden page gets no frames.
    if (document.visibilityState === "hidden") this.#flush();
    else if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#flush());
  }

  #flush(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#arrived.length === 0) return;
    const arrived = this.#arrived;
    this.#arrived = [];
    this.#events.push(...arrived);
    if (this.#events.length > MOST_KEPT) this.#events.splice(0, this.#events.length - MOST_KEPT);
    this.state = reduceAll(this.state, arrived);
    if (this.hasEnded || this.state.stopRequested) this.#hasAskedToStop = false;
  }

  #rebuild(): void {
    if (this.task === null) return;
    const made = withTask(reduceAll(initialState, this.#events), this.task);
    this.state = settled(made, this.state);
  }

  #refuse(error: unknown): void {
    if (error instanceof ApiError && error.status === 404) this.isMissing = true;
    else this.fault = error;
  }
}
