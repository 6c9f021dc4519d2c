/** What the command palette offers. */

import type { Task } from "../api/types";
import { statuses } from "../i18n/common";
import { sayer } from "../i18n/index.svelte";
import { shell } from "../i18n/shell";
import { toastError } from "../state/errors.svelte";
import { preferences } from "../state/preferences.svelte";
import { router } from "../state/router.svelte";
import { session } from "../state/session.svelte";
import { tasks } from "../state/tasks.svelte";
import type { IconName } from "../ui/icons";
import { overlays } from "./overlays.svelte";

export type Command = {
  readonly id: string;
  readonly icon: IconName;
  readonly label: string;
  /** Other words that it is found by. */
  readonly also: readonly string[];
  /** What is told beside it. */
  readonly note?: string;
  readonly run: () => void;
};

export type CommandGroup = { readonly title: string; readonly commands: readonly Command[] };

const TASKS_MOST = 20;
const say = sayer(shell);
const sayStatus = sayer(statuses);

/** In the language that is spoken now. */
export function commandGroups(): readonly CommandGroup[] {
  return [
    { title: say("paletteActions"), commands: actions() },
    { title: say("palettePages"), commands: pages() },
    { title: say("paletteLook"), commands: looks() },
    { title: say("paletteTasks"), commands: tasks.latest.rows.slice(0, TASKS_MOST).map(taskCommand) },
  ];
}

function taskCommand(task: Task): Command {
  const label = task.goal.split("\n", 1)[0] ?? "";
  const run = () => router.go(`/tasks/${task.id}`);
  return { id: `task-${task.id}`, icon: "message", label, also: [`#${task.id}`], note: sayStatus(task.status), run };
}

/** Log out; what fails is told. */
export async function logOut(): Promise<void> {
  try {
    await session.logOut();
  } catch (error) {
    toastError(error, () => void logOut());
  }
}

function actions(): Command[] {
  return [
    { id: "new", icon: "add", label: say("newTask"), also: ["new", "task", "新建"], run: () => router.go("/") },
    { id: "search", icon: "search", label: say("keySearch"), also: ["search", "find", "搜索"], run: () => router.go("/tasks#search") },
    { id: "keys", icon: "keyboard", label: say("keyHelp"), also: ["help", "keys", "shortcuts", "帮助"], run: () => overlays.show("keys") },
    { id: "logout", icon: "logout", label: say("logOut"), also: ["logout", "exit", "退出"], run: () => void logOut() },
  ];
}

function pages(): Command[] {
  const places: Command[] = [
    { id: "home", icon: "home", label: say("home"), also: ["home"], run: () => router.go("/") },
    { id: "tasks", icon: "list", label: say("tasks"), also: ["tasks", "list"], run: () => router.go("/tasks") },
    { id: "settings", icon: "settings", label: say("settings"), also: ["settings", "preferences"], run: () => router.go("/settings") },
    { id: "tokens", icon: "key", label: say("apiTokens"), also: ["token", "api", "key"], run: () => router.go("/settings#tokens") },
    { id: "docs", icon: "code", label: say("docs"), also: ["api", "docs", "openapi"], run: () => void open("/docs", "_blank", "noopener") },
  ];
  const admin: Command = { id: "admin", icon: "admin", label: say("admin"), also: ["admin"], run: () => router.go("/admin") };
  return session.user?.is_admin ? [...places, admin] : places;
}

function looks(): Command[] {
  return [
    { id: "light", icon: "sun", label: say("toLight"), also: ["theme", "light", "主题"], run: () => preferences.choose({ theme: "light" }) },
    { id: "dark", icon: "moon", label: say("toDark"), also: ["theme", "dark", "主题"], run: () => preferences.choose({ theme: "dark" }) },
    { id: "system", icon: "settings", label: say("themeSystem"), also: ["theme", "system"], run: () => preferences.choose({ theme: "system" }) },
    { id: "zh", icon: "globe", label: say("toChinese"), also: ["language", "chinese", "语言"], run: () => preferences.choose({ language: "zh" }) },
    { id: "en", icon: "globe", label: say("toEnglish"), also: ["language", "english", "语言"], run: () => preferences.choose({ language: "en" }) },
  ];
}
