/** Keeps the newest in sight of somebody who is at the end, and leaves everybody else where they are. */

const NEAR_PX = 64;

export class Follower {
  isAtEnd = $state(true);
  #scroller: HTMLElement | null = null;
  #lastTop = 0;

  /** Attach to what scrolls and to what grows in it; gives what detaches. */
  attach(scroller: HTMLElement, content: HTMLElement): () => void {
    this.#scroller = scroller;
    const observer = new ResizeObserver(() => this.isAtEnd && this.#jump());
    observer.observe(content);
    observer.observe(scroller);
    return () => observer.disconnect();
  }

  /** The scroller has moved, by us or by somebody. */
  noteScroll(): void {
    const scroller = this.#scroller;
    if (!scroller) return;
    const isNear = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop < NEAR_PX;
    // What grows below moves nobody: only who scrolls up leaves the end.
    if (isNear) this.isAtEnd = true;
    else if (scroller.scrollTop < this.#lastTop - 1) this.isAtEnd = false;
    this.#lastTop = scroller.scrollTop;
  }

  toEnd(): void {
    this.isAtEnd = true;
    this.#jump();
  }

  leave(): void {
    this.isAtEnd = false;
  }

  /** Change what stands above while what is in sight stays where it is: browsers see to that only below the very top. */
  async holding(change: () => Promise<void>): Promise<void> {
    const held = this.#firstInSight();
    const before = held?.getBoundingClientRect().top ?? 0;
    await change();
    if (this.#scroller && held && !this.isAtEnd) this.#scroller.scrollTop += held.getBoundingClientRect().top - before;
  }

  #firstInSight(): Element | undefined {
    const top = this.#scroller?.getBoundingClientRect().top ?? 0;
    const items = this.#scroller?.querySelectorAll("li") ?? [];
    return [...items].find((item) => item.getBoundingClientRect().bottom > top);
  }

  #jump(): void {
    if (this.#scroller) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}
