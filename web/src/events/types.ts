/** The events of a task's log (WIRE.md, "Events and the stream"). */

import type { Event } from "../api/types";

export type { Event };

export type EventType = Event["type"];

/** The events of one type. */
export type EventOf<T extends EventType> = Extract<Event, { readonly type: T }>;
