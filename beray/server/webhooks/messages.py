"""What is said, and to whom: a message is made of an event in the transaction that stores it, so a crash loses none."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from beray.protocol.types import JsonObject
from beray.server.clock import Clock, iso
from beray.server.db import webhooks as queries
from beray.server.db.tasks import TaskRecord, get_task
from beray.server.events.log import Numbered

SAID: Final = frozenset({"task.finished", "input.requested"})
"""Events that somebody waits for, or has to come for."""

PENDING_MOST: Final = 1_000  # messages of one user that wait; a receiver that is away for long loses the oldest
TEXT_MOST: Final = 16_384  # characters of one field; receivers commonly take bodies of 100 KB, and want far less
_TEXTS: Final = ("goal", "result")

View = Callable[[TaskRecord], Any]
"""A task as its user is shown it."""


class Announcer:
    """Puts a message down for each event that is said; see `OnStored`."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view = view
        self._clock = clock

    def __call__(self, connection: Connection, task_id: int, events: Sequence[Numbered]) -> None:
        """Called within the transaction that stores the events."""
        said = [(seq, event.type) for seq, event in events if event.type in SAID]
        if not said:
            return
        user_id, url = queries.find_receiver(connection, task_id) or (0, None)
        if url is None:
            return
        row = get_task(connection, user_id, task_id)
        assert row is not None, "its receiver has been found in this transaction"
        data, now = _cut(self._view(row)), self._clock()
        for seq, event_type in said:
            queries.enqueue(
                connection,
                user_id=user_id,
                task_id=task_id,
                message_id=f"msg_{task_id}_{row.run}_{seq}",
                body=orjson.dumps({"type": event_type, "timestamp": iso(now), "data": data}),
                now=now,
                most=PENDING_MOST,
            )


def _cut(task: JsonObject) -> JsonObject:
    """The task with its texts short enough to be sent, and told which are cut."""
    cut = [name for name in _TEXTS if len(task[name] or "") > TEXT_MOST]
    if not cut:
        return task
    return {**task, **{name: task[name][:TEXT_MOST] for name in cut}, "truncated": cut}
