/** Which page stands at which path. */

import type { Component } from "svelte";

type Load = () => Promise<{ default: Component }>;

export type Page = {
  readonly path: string;
  readonly load: Load;
  /** For who is not logged in, and for nobody else. */
  readonly isOpen?: boolean;
};

const PAGES: readonly Page[] = [
  { path: "/login", load: () => import("./account/LoginPage.svelte"), isOpen: true },
  { path: "/register", load: () => import("./account/RegisterPage.svelte"), isOpen: true },
  { path: "/reset", load: () => import("./account/ResetPage.svelte"), isOpen: true },
  { path: "/", load: () => import("./home/HomePage.svelte") },
  { path: "/tasks", load: () => import("./tasks/TasksPage.svelte") },
  { path: "/tasks/:id", load: () => import("./task/TaskPage.svelte") },
  { path: "/settings", load: () => import("./settings/SettingsPage.svelte") },
  { path: "/admin", load: () => import("./admin/AdminPage.svelte") },
];

/** The page at a path; null: there is none. */
export function findPage(path: string): Page | null {
  return PAGES.find((page) => pattern(page.path).test(path)) ?? null;
}

function pattern(path: string): RegExp {
  return new RegExp(`^${path.replace(":id", "[1-9]\\d{0,18}")}$`);
}
