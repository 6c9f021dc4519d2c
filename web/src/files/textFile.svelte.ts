/** The text of a file, read piece by piece: the first megabyte, then more on demand. */

import { decoded, encodingOf, type Encoding, type Found } from "./encoding";
import { readPart, type Head } from "./content";

export const PIECE_BYTES = 1 << 20;
export const PIECES_MOST = 8; // a browser shows no more lines with ease; the rest is for an editor

export class TextFile {
  #content = $state.raw<Uint8Array>(new Uint8Array());
  #chosen = $state<Encoding | null>(null);
  isLoading = $state(false);
  readonly #found = $derived.by<Found | null>(() => encodingOf(this.#content, { isPart: this.isPart }));
  /** null: it is not text. */
  readonly text = $derived.by<string | null>(() =>
    this.encoding === null ? null : decoded(this.#content, this.encoding, { isPart: this.isPart }),
  );

  constructor(
    readonly taskId: number,
    readonly path: string,
    readonly head: Head,
    readonly signal: AbortSignal,
  ) {}

  get encoding(): Encoding | null {
    return this.#chosen ?? this.#found?.encoding ?? null;
  }

  /** Nothing but the bytes themselves speaks for the encoding. */
  get isGuess(): boolean {
    return this.#chosen !== null || this.#found?.isGuess === true;
  }

  get loadedBytes(): number {
    return this.#content.length;
  }

  get content(): Uint8Array {
    return this.#content;
  }

  get isPart(): boolean {
    return this.#content.length < this.head.size;
  }

  get canLoadMore(): boolean {
    return this.isPart && this.#content.length < PIECE_BYTES * PIECES_MOST;
  }

  choose(encoding: Encoding): void {
    this.#chosen = encoding;
  }

  /** Read the next piece, `bytes` long. */
  async load(bytes: number = PIECE_BYTES): Promise<void> {
    const { taskId, path, head, signal } = this;
    const start = this.#content.length;
    this.isLoading = true;
    try {
      const piece = await readPart(taskId, path, { head, start, stop: start + bytes, signal });
      const grown = new Uint8Array(start + piece.length);
      grown.set(this.#content);
      grown.set(piece, start);
      this.#content = grown;
    } finally {
      this.isLoading = false;
    }
  }
}
