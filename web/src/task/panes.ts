/** The parts of a task's page that a person chooses among; the timeline is one only where the window is narrow. */

export type Pane = "files" | "changes" | "details";

export type Part = "timeline" | Pane;
