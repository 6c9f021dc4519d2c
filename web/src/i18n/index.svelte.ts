/** The language that is spoken now. `const say = sayer(dictionary)`, then `say("key")` in a component follows the choice. */

import { preferences } from "../state/preferences.svelte";
import { filled, type Dictionary, type Language } from "./dictionary";

export { dictionary, type Language } from "./dictionary";

export function language(): Language {
  return preferences.language;
}

export function locale(): string {
  return preferences.language === "zh" ? "zh-CN" : "en";
}

export function sayer<K extends string>(words: Dictionary<K>) {
  return (key: K, values: Readonly<Record<string, string | number>> = {}): string => filled(words[preferences.language][key], values);
}
