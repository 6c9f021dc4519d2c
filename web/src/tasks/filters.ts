/** What the list shows, as its address says it: `/tasks?q=report&status=active`. */

import type { Status } from "../api/types";
import type { Filter } from "../state/tasks.svelte";

export const CHIPS = ["all", "active", "waiting", "completed", "failed", "stopped"] as const;
export type Chip = (typeof CHIPS)[number];

const ACTIVE: readonly Status[] = ["queued", "running", "waiting"];

export function chipOf(query: URLSearchParams): Chip {
  const named = query.get("status");
  return CHIPS.find((chip) => chip === named) ?? "all";
}

export function filterOf(query: URLSearchParams): Filter {
  const chip = chipOf(query);
  const statuses = chip === "all" ? [] : chip === "active" ? ACTIVE : [chip];
  return { q: (query.get("q") ?? "").trim(), statuses };
}

export function addressOf(q: string, chip: Chip): string {
  const query = new URLSearchParams();
  if (q.trim()) query.set("q", q.trim());
  if (chip !== "all") query.set("status", chip);
  return query.size > 0 ? `/tasks?${query}` : "/tasks";
}
