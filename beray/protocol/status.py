"""Task states and the transitions between them, as one table.

The server changes a status only where `TRANSITIONS` allows it; nothing else may say what may follow what.

    queued -> running <-> waiting -> completed | failed | stopped
    an ended task -> queued by a further message (a new run)

Stopping is not a state: it is `running` (or `waiting`) with `"stop_requested": true`.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

Status = Literal["queued", "running", "waiting", "completed", "failed", "stopped"]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)

TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    "queued": frozenset({"running", "failed", "stopped"}),
    "running": frozenset({"waiting", "completed", "failed", "stopped"}),
    "waiting": frozenset({"running", "failed", "stopped"}),
    "completed": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "stopped": frozenset({"queued"}),
}

ENDED: Final[frozenset[Status]] = frozenset({"completed", "failed", "stopped"})
"""States in which no agent works on the task; its last event is a `task.finished`."""

STOPPABLE: Final[frozenset[Status]] = frozenset({"queued", "running", "waiting"})
