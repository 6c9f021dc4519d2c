/** The names that the admin's pages have for what the routes of admins answer. */

import type * as schema from "../api/schema";

export type Overview = schema.OverviewBody;
export type Process = schema.ProcessBody;
export type SeenUser = schema.SeenUserBody;
export type SeenTask = schema.SeenTaskBody;
export type Entry = schema.EntryBody;
export type Action = NonNullable<NonNullable<schema.operations["list_entries_api_v1_admin_audit_get"]["parameters"]["query"]>["action"]>;
