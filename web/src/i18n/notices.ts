/** What a hidden tab tells. */

import { dictionary } from "./dictionary";

export const notices = dictionary(
  {
    completed: "任务 {id} 已完成",
    failed: "任务 {id} 失败",
    stopped: "任务 {id} 已停止",
    waiting: "任务 {id} 在等您回复",
  },
  {
    completed: "Task {id} is completed",
    failed: "Task {id} has failed",
    stopped: "Task {id} was stopped",
    waiting: "Task {id} waits for your answer",
  },
);
