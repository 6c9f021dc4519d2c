"""Task states and the transitions between them, as one table.

Server, SDK, tests and docs all read `TRANSITIONS`; nothing else may say what may follow what (WIRE.md, "Status").

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


def can_change(old: Status, new: Status) -> bool:
    """Whether a task may go from `old` to `new` in one step."""
    return new in TRANSITIONS[old]
