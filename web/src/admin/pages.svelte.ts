/** A list that comes page by page and is looked at again: users, tasks, the audit log. */

import { send, type Query } from "../api/client";

export class Pages<T extends { readonly id: number }> {
  rows = $state.raw<readonly T[]>([]);
  hasMore = $state(false);
  isLoaded = $state(false);
  isLoadingMore = $state(false);
  error = $state.raw<unknown>(null);
  #next: number | null = null;
  #asked = 0;

  constructor(
    private readonly path: string,
    private readonly query: Query,
    private readonly most: number,
    private readonly page = 50,
  ) {}

  /** What is shown, anew; at most `most` of it, for that is what the server gives at once. It never throws: `error` tells. */
  async refresh(): Promise<void> {
    const asked = ++this.#asked;
    const limit = Math.min(this.most, Math.max(this.page, this.rows.length));
    try {
      const { rows, next } = await this.#ask({ limit });
      if (asked !== this.#asked) return;
      const last = rows.at(-1)?.id ?? 0;
      const older = next !== null && limit === this.most ? this.rows.filter((row) => row.id < last) : [];
      this.rows = [...rows, ...older];
      if (older.length === 0) this.#go(next);
      this.error = null;
      this.isLoaded = true;
    } catch (error) {
      if (asked === this.#asked) this.error = error;
    }
  }

  async loadMore(): Promise<void> {
    if (this.#next === null || this.isLoadingMore) return;
    this.isLoadingMore = true;
    const before = this.#next;
    try {
      const { rows, next } = await this.#ask({ limit: this.page, before });
      const known = new Set(this.rows.map((row) => row.id));
      this.rows = [...this.rows, ...rows.filter((row) => !known.has(row.id))];
      this.#go(next);
    } finally {
      this.isLoadingMore = false;
    }
  }

  #go(next: number | null): void {
    this.#next = next;
    this.hasMore = next !== null;
  }

  async #ask(page: { limit: number; before?: number }): Promise<{ rows: readonly T[]; next: number | null }> {
    const response = await send("GET", this.path, { query: { ...this.query, ...page }, signal: AbortSignal.timeout(30_000) });
    return { rows: (await response.json()) as readonly T[], next: nextBefore(response.headers.get("link")) };
  }
}

/** `before` of the next page that a `Link` header names. */
export function nextBefore(link: string | null): number | null {
  const found = /<[^>]*[?&]before=(\d+)[^>]*>;\s*rel="?next/.exec(link ?? "");
  return found ? Number(found[1]) : null;
}
