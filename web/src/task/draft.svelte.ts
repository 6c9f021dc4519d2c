/** What somebody is writing to a task: kept on this device until it has been sent. */

const PREFIX = "beray.draft.task.";

export class Draft {
  #key: string;
  #text = $state("");

  constructor(taskId: number) {
    this.#key = PREFIX + taskId;
    try {
      this.#text = localStorage.getItem(this.#key) ?? "";
    } catch {
      // Storage is off: the draft lives as long as the page.
    }
  }

  get text(): string {
    return this.#text;
  }

  set text(text: string) {
    this.#text = text;
    try {
      if (text === "") localStorage.removeItem(this.#key);
      else localStorage.setItem(this.#key, text);
    } catch {
      // Storage is off or full.
    }
  }
}
