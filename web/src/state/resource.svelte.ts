/** Something of the server's that a part of a page shows: its value, or why there is none. */

export class Resource<T> {
  value = $state.raw<T | null>(null);
  /** Why the last look failed; null after one that did not. */
  error = $state.raw<unknown>(null);
  #asked = 0;

  constructor(private readonly ask: () => Promise<T>) {}

  /** It never throws: `error` tells. Of several looks the last one counts. */
  async load(): Promise<void> {
    const asked = ++this.#asked;
    try {
      const value = await this.ask();
      if (asked !== this.#asked) return;
      this.value = value;
      this.error = null;
    } catch (error) {
      if (asked === this.#asked) this.error = error;
    }
  }
}
