/** The names that the console has for the types of the API (`schema.ts`, generated from /openapi.json). */

import type * as schema from "./schema";

export type Problem = schema.ProblemBody;
export type User = schema.UserBody;
export type Task = schema.TaskBody;
export type TaskWithEvents = schema.TaskWithEventsBody;
export type Status = Task["status"];
export type Usage = schema.UsageBody;
export type TaskError = schema.TaskError;
export type FileNode = schema.FileNodeBody;
export type Upload = schema.UploadBody;
export type ApiToken = schema.ApiTokenBody;
export type CreatedApiToken = schema.CreatedApiTokenBody;
export type DayUsage = schema.DayUsageBody;
export type ModelCheck = schema.CheckBody;
export type NewTask = Partial<schema.CreateTask> & Pick<schema.CreateTask, "goal">;
export type Message = schema.MessageBody;

export type Info = schema.Info;

export type Session = schema.OpenSessionBody;

export type Webhook = schema.WebhookBody;

export type { DayLimits, Event, FileSize, PlanItem, Question, Ready, Sandbox, ServerLimits } from "./schema";
