/** Sentences in both languages, one dictionary an area of the console; the compiler holds the languages to the same keys. */

export type Language = "zh" | "en";

export type Dictionary<K extends string = string> = Readonly<Record<Language, Readonly<Record<K, string>>>>;

export function dictionary<const T extends Readonly<Record<string, string>>>(
  zh: T,
  en: Readonly<Record<keyof T & string, string>>,
): Dictionary<keyof T & string> {
  return { zh, en };
}

/** `text` with each `{name}` replaced. */
export function filled(text: string, values: Readonly<Record<string, string | number>> = {}): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? String(values[name]) : whole));
}
