/** What a sandbox leaves open. */

import type { Sandbox } from "../api/types";

// Files, processes, signals and the network are other people's; the rest are limits on what a task may use.
const GRAVE: ReadonlySet<string> = new Set(["files", "processes", "signals", "network", "metadata"]);

/** The confinements that are not there, those of them that let a task reach what is not its own. */
export function openings(sandbox: Sandbox | null): Sandbox["confinements"] {
  return (sandbox?.confinements ?? []).filter((one) => !one.is_confined && GRAVE.has(one.name));
}
