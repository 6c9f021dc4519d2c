/** What the routes of admins answer. */

import type { DayUsage, ModelCheck, Ready, ServerLimits, Status, Task, Usage } from "../api/types";

export type Process = {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly role: "all" | "api" | "worker";
  readonly version: string;
  readonly beat_seconds: number;
  readonly running: number | null;
};

export type Overview = {
  readonly version: string;
  readonly users: number;
  readonly tasks: Readonly<Record<"queued" | "running" | "waiting" | "ended", number>>;
  readonly ended_today: Readonly<Record<"completed" | "failed" | "stopped", number>>;
  readonly queue: { readonly queued: number; readonly oldest_seconds: number | null };
  readonly processes: readonly Process[];
  readonly storage: {
    readonly stored_bytes: number;
    readonly free_bytes: number | null;
    readonly total_bytes: number | null;
    readonly database_bytes: number;
  };
  readonly model: {
    readonly name: string;
    readonly kind: "model" | "rules";
    readonly last_check: (ModelCheck & { readonly seconds_ago: number }) | null;
  };
  readonly checks: Ready["checks"];
  readonly usage_today: DayUsage["used"];
  readonly limits: ServerLimits;
};

export type SeenUser = {
  readonly id: number;
  readonly email: string;
  readonly created_at: string;
  readonly is_admin: boolean;
  readonly tasks: number;
  readonly active_tasks: number;
  readonly stored_bytes: number;
  readonly usage_today: {
    readonly requests: number;
    readonly tokens: number;
    readonly cost_usd: number;
    readonly requests_of_unknown_cost: number;
  };
  readonly last_login_at: string | null;
};

export type SeenTask = Pick<
  Task,
  "id" | "created_at" | "started_at" | "finished_at" | "model" | "run" | "attempt" | "stop_requested"
> & {
  readonly user: { readonly id: number; readonly email: string };
  readonly status: Status;
  readonly usage: Usage;
};

export type Entry = {
  readonly id: number;
  readonly at: string;
  readonly action: string;
  readonly user_id: number | null;
  readonly who: string | null;
  readonly address: string | null;
  readonly task_id: number | null;
  readonly resource: string | null;
  readonly request_id: string | null;
};
