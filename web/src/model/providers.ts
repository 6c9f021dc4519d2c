/** How a provider's model is set: those that the server names, one's own machine, and whatever else speaks the protocol. */

import type { Info } from "../api/types";

type WordKey = "providerQwen" | "providerZhipu" | "providerOther";
type NoteKey = "note_anthropic" | "note_dashscope" | "note_moonshotai" | "note_zhipu" | "note_zai" | "note_ollama" | "note_other";

export type Provider = {
  readonly id: string;
  /** A name that is the same in both languages, or a key of the dictionary. */
  readonly name: string | { readonly key: WordKey };
  readonly commands: string;
  readonly note?: NoteKey;
};

const KNOWN: Readonly<Record<string, Pick<Provider, "name" | "note">>> = {
  openai: { name: "OpenAI" },
  anthropic: { name: "Anthropic", note: "note_anthropic" },
  deepseek: { name: "DeepSeek" },
  dashscope: { name: { key: "providerQwen" }, note: "note_dashscope" },
  moonshotai: { name: "Kimi", note: "note_moonshotai" },
  zai: { name: "Z.AI", note: "note_zai" },
  zhipu: { name: { key: "providerZhipu" }, note: "note_zhipu" },
};

const OWN: readonly Provider[] = [
  { id: "ollama", name: "Ollama", commands: "export BERAY_MODEL=ollama:qwen3", note: "note_ollama" },
  {
    id: "other",
    name: { key: "providerOther" },
    commands: "export BERAY_MODEL=openai:my-model\nexport BERAY_MODEL_BASE_URL=http://127.0.0.1:8080/v1\nexport BERAY_MODEL_API_KEY=...",
    note: "note_other",
  },
];

export const RESTART = "uv run beray serve";

export function providersOf(info: Info | null): readonly Provider[] {
  const keyed = (info?.model_keys ?? []).map(({ variable, model }) => {
    const id = model.split(":", 1)[0] ?? model;
    return { id, name: id, ...KNOWN[id], commands: `export BERAY_MODEL=${model}\nexport ${variable}=...` };
  });
  return [...keyed, ...OWN];
}
