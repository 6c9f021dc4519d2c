import { expect, test } from "vitest";
import { each } from "./bulk";

test("what fails is counted, and the others are done", async () => {
  const seen: number[] = [];
  const progress: number[] = [];
  const act = async (id: number) => {
    if (id % 3 === 0) throw new Error(`no ${id}`);
    seen.push(id);
  };

  const outcome = await each([1, 2, 3, 4, 5, 6, 7], act, (count) => progress.push(count));

  expect(seen.sort()).toEqual([1, 2, 4, 5, 7]);
  expect(outcome.done).toBe(5);
  expect(outcome.failures.map(String)).toEqual(["Error: no 3", "Error: no 6"]);
  expect(progress).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test("no more than four at a time", async () => {
  let now = 0;
  let most = 0;
  const act = async () => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setTimeout(resolve, 1));
    now -= 1;
  };

  await each(Array.from({ length: 20 }, (_, index) => index), act, () => undefined);

  expect(most).toBe(4);
});
