/** How each provider's model is set (the documentation's page "Models" has them all). */

export type ProviderId = "openai" | "anthropic" | "deepseek" | "dashscope" | "moonshotai" | "zhipu" | "ollama" | "other";

type Provider = {
  readonly id: ProviderId;
  /** A name that is the same in both languages, or a key of the dictionary. */
  readonly name: string | { readonly key: "providerQwen" | "providerZhipu" | "providerOther" };
  readonly commands: string;
  readonly note?: "note_anthropic" | "note_dashscope" | "note_moonshotai" | "note_zhipu" | "note_ollama" | "note_other";
};

export const PROVIDERS: readonly Provider[] = [
  { id: "openai", name: "OpenAI", commands: "export BERAY_MODEL=openai:gpt-5\nexport OPENAI_API_KEY=..." },
  {
    id: "anthropic",
    name: "Anthropic",
    commands: "export BERAY_MODEL=anthropic:claude-sonnet-5-5\nexport ANTHROPIC_API_KEY=...",
    note: "note_anthropic",
  },
  { id: "deepseek", name: "DeepSeek", commands: "export BERAY_MODEL=deepseek:deepseek-chat\nexport DEEPSEEK_API_KEY=..." },
  {
    id: "dashscope",
    name: { key: "providerQwen" },
    commands: "export BERAY_MODEL=dashscope:qwen-plus\nexport DASHSCOPE_API_KEY=...",
    note: "note_dashscope",
  },
  {
    id: "moonshotai",
    name: "Kimi",
    commands: "export BERAY_MODEL=moonshotai:kimi-k2.6\nexport MOONSHOTAI_API_KEY=...",
    note: "note_moonshotai",
  },
  {
    id: "zhipu",
    name: { key: "providerZhipu" },
    commands: "export BERAY_MODEL=zhipu:glm-4.7\nexport ZHIPUAI_API_KEY=...",
    note: "note_zhipu",
  },
  { id: "ollama", name: "Ollama", commands: "export BERAY_MODEL=ollama:qwen3", note: "note_ollama" },
  {
    id: "other",
    name: { key: "providerOther" },
    commands: "export BERAY_MODEL=openai:my-model\nexport BERAY_MODEL_BASE_URL=http://127.0.0.1:8080/v1\nexport BERAY_MODEL_API_KEY=...",
    note: "note_other",
  },
];

export const RESTART = "uv run beray serve";
