/** Bytes of a `text/event-stream` into the data of its events (WHATWG HTML, "Interpreting an event stream"). */

/** Takes chunks cut anywhere, also inside a character; gives the `data` of each event that is complete. */
export class EventStreamDecoder {
  readonly #decoder = new TextDecoder("utf-8");
  #rest = "";
  #data: string[] = [];

  decode(chunk: Uint8Array): string[] {
    this.#rest += this.#decoder.decode(chunk, { stream: true });
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events: string[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}
