/** What the audit log tells of. */

import type { Action } from "./types";

// An object, so that the compiler holds it to all that the API has.
const NAMES: Readonly<Record<Action, true>> = {
  "code.requested": true,
  "code.refused": true,
  register: true,
  "register.failed": true,
  login: true,
  "login.failed": true,
  logout: true,
  "session.ended": true,
  "password.reset": true,
  "password.reset.failed": true,
  "password.changed": true,
  "password.change.failed": true,
  "token.created": true,
  "token.deleted": true,
  "account.deleted": true,
  "account.delete.failed": true,
  "rate.refused": true,
  "webhook.changed": true,
  "webhook.secret": true,
  "task.created": true,
  "task.started": true,
  "task.message": true,
  "task.stopped": true,
  "task.deleted": true,
  "task.foreign": true,
  "file.written": true,
  "file.deleted": true,
  "admin.purge": true,
  "admin.audit.pruned": true,
  "admin.promoted": true,
  "admin.demoted": true,
  "admin.task.stopped": true,
  "audit.lost": true,
};

export const ACTIONS = Object.keys(NAMES);
