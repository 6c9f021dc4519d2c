/** CSV and TSV into rows (RFC 4180; line ends of any kind, and other separators, for spreadsheets write them). */

export type Table = {
  readonly rows: readonly (readonly string[])[];
  /** Of the longest row. */
  readonly columns: number;
  /** There are more rows than were wanted. */
  readonly isCut: boolean;
};

const LOOKED_AT = 20_000; // characters; the first row is seldom longer
const SEPARATORS = [",", ";", "\t", "|"] as const;

/** At most `most` rows. Of a text that `isPart` the last row is left out: nobody knows where it would have ended. */
export function parseTable(text: string, { separator, most, isPart = false }: { separator: string; most: number; isPart?: boolean }): Table {
  const reader = new Reader(text, separator);
  const rows: string[][] = [];
  while (rows.length < most && !reader.isAtEnd) rows.push(reader.row());
  const isCut = !reader.isAtEnd;
  if (isPart && !isCut) rows.pop();
  return { rows, columns: rows.reduce((most, row) => Math.max(most, row.length), 0), isCut: isCut || isPart };
}

/** Of the usual ones that which stands most often in the first row outside quotes; a tab for `.tsv`. */
export function separatorOf(path: string, text: string): string {
  if (path.toLowerCase().endsWith(".tsv")) return "\t";
  const plain = text.slice(0, LOOKED_AT).replace(/"(?:[^"]|"")*"/g, "").split(/[\r\n]/, 1)[0] ?? "";
  const counted = SEPARATORS.map((separator) => ({ separator, count: plain.split(separator).length - 1 }));
  return counted.reduce((best, one) => (one.count > best.count ? one : best)).separator;
}

class Reader {
  #at = 0;

  constructor(
    readonly text: string,
    readonly separator: string,
  ) {}

  get isAtEnd(): boolean {
    return this.#at >= this.text.length;
  }

  row(): string[] {
    const fields = [this.#field()];
    while (this.text[this.#at] === this.separator) {
      this.#at += 1;
      fields.push(this.#field());
    }
    if (this.text[this.#at] === "\r") this.#at += 1;
    if (this.text[this.#at] === "\n") this.#at += 1;
    return fields;
  }

  #field(): string {
    if (this.text[this.#at] !== '"') return this.#plain();
    const quoted = this.#quoted();
    return quoted + this.#plain(); // what stands behind the closing quote is no CSV, but it is shown
  }

  #plain(): string {
    const from = this.#at;
    while (this.#at < this.text.length && !this.#isEndOfField(this.text[this.#at])) this.#at += 1;
    return this.text.slice(from, this.#at);
  }

  #quoted(): string {
    const pieces: string[] = [];
    let from = this.#at + 1;
    for (;;) {
      const quote = this.text.indexOf('"', from);
      if (quote === -1) {
        this.#at = this.text.length; // it is never closed: the rest of the text
        return pieces.join("") + this.text.slice(from);
      }
      pieces.push(this.text.slice(from, quote));
      if (this.text[quote + 1] !== '"') {
        this.#at = quote + 1;
        return pieces.join("");
      }
      pieces.push('"');
      from = quote + 2;
    }
  }

  #isEndOfField(character: string | undefined): boolean {
    return character === this.separator || character === "\n" || character === "\r";
  }
}
