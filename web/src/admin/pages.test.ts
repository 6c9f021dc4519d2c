import { expect, test } from "vitest";
import { nextBefore } from "./pages.svelte";

test("the next page is the one that the header names", () => {
  expect(nextBefore('</api/v1/admin/users?limit=50&before=17>; rel="next"')).toBe(17);
  expect(nextBefore('</api/v1/admin/users?before=17&q=a>; rel="prev"')).toBeNull();
  expect(nextBefore(null)).toBeNull();
});
