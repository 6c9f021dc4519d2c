/** Times as short as a narrow list has room for. */

import { locale } from "../i18n/index.svelte";
import { now } from "../state/clock.svelte";

const DAY_MS = 86_400_000;

/** Of today the time, of this year the day, else the year. */
export function shortTime(iso: string): string {
  const date = new Date(iso);
  const today = new Date(Math.floor(now() / 60_000) * 60_000);
  if (date.toDateString() === today.toDateString()) {
    return new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(date);
  }
  if (Math.abs(today.getTime() - date.getTime()) < DAY_MS * 300) {
    return new Intl.DateTimeFormat(locale(), { month: "short", day: "numeric" }).format(date);
  }
  return new Intl.DateTimeFormat(locale(), { year: "numeric", month: "numeric" }).format(date);
}
