/** Numbers, sizes, times as people read them, in the language that is spoken now. */

import { locale } from "./index.svelte";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function number(value: number, options: Intl.NumberFormatOptions = {}): string {
  return new Intl.NumberFormat(locale(), options).format(value);
}

/** `1.2K`, `3.4M`: for counts of tokens. */
export function compact(value: number): string {
  return number(value, { notation: "compact", maximumFractionDigits: 1 });
}

export function bytes(size: number): string {
  let unit = 0;
  let value = size;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value, { maximumFractionDigits: unit === 0 || value >= 100 ? 0 : 1 })} ${UNITS[unit]}`;
}

/** US dollars; small sums keep two figures that count. */
export function money(usd: number): string {
  const digits = usd >= 1 || usd === 0 ? { maximumFractionDigits: 2 } : { maximumSignificantDigits: 2 };
  return number(usd, { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol", ...digits });
}

/** `340 ms`, `2.4 s`, `3 min 5 s`, `2 h 10 min`; the same in both languages. */
export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${number(seconds, { maximumFractionDigits: 1 })} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.floor((whole % 3600) / 60);
  return `${Math.floor(whole / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
}

/** Of what is counted in whole seconds: a time that still runs, or one that the API tells so. */
export function wholeSeconds(milliseconds: number): string {
  return milliseconds < 1000 ? "0 s" : duration(Math.floor(milliseconds / 1000) * 1000);
}

export function dateTime(iso: string): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso));
}

export function clockTime(iso: string): string {
  return new Intl.DateTimeFormat(locale(), { timeStyle: "medium" }).format(new Date(iso));
}

const STEPS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** "2 minutes ago", "yesterday"; `now` in milliseconds. */
export function relative(iso: string, now: number): string {
  const seconds = (Date.parse(iso) - now) / 1000;
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" });
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  }
  return format.format(0, "second");
}
