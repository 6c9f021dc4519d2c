/** Whole seconds down to 0. */
export class Countdown {
  seconds = $state(0);
  #timer: ReturnType<typeof setInterval> | undefined;

  begin(seconds: number): void {
    clearInterval(this.#timer);
    const end = Date.now() + seconds * 1000;
    const look = () => {
      this.seconds = Math.max(0, Math.ceil((end - Date.now()) / 1000));
      if (this.seconds === 0) clearInterval(this.#timer);
    };
    this.#timer = setInterval(look, 250);
    look();
  }
}
