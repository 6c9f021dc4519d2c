/** What a task may use, as the operator allows and as it was asked for. */

import type { Info } from "../api/types";
import type { Limit } from "./newTask.svelte";

const LEAST_USD = 1e-6;
const WHOLE_MOST = 2 ** 31 - 1;

/** The operator's; null: there is none. */
export function operatorsLimit(info: Info, limit: Limit): number | null {
  return info.limits[limit] || null;
}

export function leastOf(limit: Limit): number {
  return limit === "cost_usd" ? LEAST_USD : 1;
}

/** Whether what was typed is a limit that counts: empty is none. */
export function isInRange(info: Info, limit: Limit, typed: string): boolean {
  if (typed === "") return true;
  const value = Number(typed);
  const most = operatorsLimit(info, limit) ?? (limit === "cost_usd" ? 1e9 : WHOLE_MOST);
  return Number.isFinite(value) && value >= leastOf(limit) && value <= most && (limit === "cost_usd" || Number.isInteger(value));
}
