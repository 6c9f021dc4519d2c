import { expect, test } from "vitest";
import { addressOf, chipOf, filterOf } from "./filters";

test("the address says what is shown, and what is shown gives the address", () => {
  expect(filterOf(new URLSearchParams("q=%20report%20&status=active"))).toEqual({ q: "report", statuses: ["queued", "running", "waiting"] });
  expect(filterOf(new URLSearchParams("status=failed"))).toEqual({ q: "", statuses: ["failed"] });
  expect(addressOf(" 报告 a&b ", "failed")).toBe("/tasks?q=%E6%8A%A5%E5%91%8A+a%26b&status=failed");
  expect(addressOf("", "all")).toBe("/tasks");
});

test("a status that is none shows all", () => {
  expect(chipOf(new URLSearchParams("status=nonsense"))).toBe("all");
  expect(filterOf(new URLSearchParams("status=nonsense"))).toEqual({ q: "", statuses: [] });
});
