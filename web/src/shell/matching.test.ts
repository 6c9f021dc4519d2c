import { expect, test } from "vitest";
import { matching } from "./matching";

const COMMANDS = [
  { label: "New task", also: ["新建"] },
  { label: "Dark theme", also: ["theme", "主题"] },
  { label: "All tasks", also: ["list"] },
  { label: "设置", also: ["settings"] },
];

function labels(typed: string): readonly string[] {
  return matching(COMMANDS, typed).map((command) => command.label);
}

test("nothing typed: all of them, as they come", () => {
  expect(labels("  ")).toEqual(["New task", "Dark theme", "All tasks", "设置"]);
});

test("a label counts before other words, and each word must be found", () => {
  expect(labels("TASK")).toEqual(["New task", "All tasks"]);
  expect(labels("new task")).toEqual(["New task"]);
  expect(labels("set")).toEqual(["设置"]);
  expect(labels("主题")).toEqual(["Dark theme"]);
  expect(labels("task nonsense")).toEqual([]);
});
