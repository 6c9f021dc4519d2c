"""The event log: append-only, numbered without gaps per task, shown only after the commit.

An event is stored as the ready bytes of its SSE frame, so that a replay is a join. `append` (or `insert`, within a
transaction) is the only way in. Nobody sees an event before it is committed, hence a `seq` once shown never names
another event, across crashes too.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from beray.protocol.sse import encode_event
from beray.protocol.types import EventType
from beray.server.clock import Clock, iso
from beray.server.db import events as queries
from beray.server.db.attempts import Attempt
from beray.server.db.connect import Part, Queries
from beray.server.db.events import Claim
from beray.server.db.notices import Notice, notify
from beray.server.events.wakeups import Wakeups

PAGE = 256  # frames read at once (LIMIT) and joined to one write
PAGE_BYTES = 64 << 10  # and bytes, unless one frame has more: what is written to a watcher at once


class Fenced(Exception):
    """The writer is no longer the one that may write: another attempt has taken the task over, or it was deleted."""


@dataclass(frozen=True)
class NewEvent:
    """An event before it has a number: its type and the fields of that type (WIRE.md)."""

    type: EventType
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Frames that follow each other in a log.

    Attributes:
        frames: They.
        is_last: Whether the log had no more.
        tail: If so: its last frame; None when the task is gone (every task has an event).
    """

    frames: list[bytes]
    is_last: bool
    tail: bytes | None = None

    def next_most(self, most: int) -> int:
        """How many to ask for next, after `most`: what is read beyond PAGE_BYTES is read for nothing."""
        return max(1, len(self.frames)) if len(self.frames) < most else min(2 * most, PAGE)


Numbered = tuple[int, NewEvent]
"""An event and its `seq`."""

OnStored = Callable[[Connection, int, Sequence[Numbered]], None]
"""Is told of a task's new events, within their transaction, when all else that belongs to them has been changed."""


def _ignore(connection: Connection, task_id: int, events: Sequence[Numbered]) -> None:
    pass


class _Append(NamedTuple):
    """Events that want to be stored."""

    claim: Claim
    events: Sequence[NewEvent]


class EventLog:
    """Append to, read and wait for the events of tasks."""

    def __init__(self, database: Queries, wakeups: Wakeups, clock: Clock, *, on_stored: OnStored = _ignore) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._on_stored = on_stored

    async def append(
        self,
        task_id: int,
        events: Sequence[NewEvent],
        *,
        attempt: Attempt | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> int:
        """Store the events; who waits for them is woken after the commit, in whatever process.

        Args:
            task_id: The task.
            events: None: only what `also` changes.
            attempt: Only if this is still the task's attempt, and its run the task's.
            also: Further changes to make in the same transaction.

        Returns:
            The last event's `seq`.

        Raises:
            Fenced: The attempt is not the task's any more, or the task is gone.
        """
        new = _Append(Claim(task_id, attempt), events)
        if also is None:
            return await self._database.write_part(Part(self._append_all, new))

        def write(connection: Connection) -> int:
            [outcome] = self._insert_all(connection, [new])
            last_seq = _or_raise(outcome)
            also(connection)
            self._tell(connection, new, last_seq)
            return last_seq

        return await self._database.write(write)

    def insert(
        self, connection: Connection, task_id: int, events: Sequence[NewEvent], *, attempt: Attempt | None = None
    ) -> int:
        """Like `append`, within the caller's transaction, as the last of its changes to the task."""
        [outcome] = self._append_all(connection, [_Append(Claim(task_id, attempt), events)])
        return _or_raise(outcome)

    def _append_all(self, connection: Connection, appends: Sequence[_Append]) -> list[int | Exception]:
        """The batch of appends: each one's last `seq`, or that it is fenced."""
        outcomes = self._insert_all(connection, appends)
        for new, outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, int):
                self._tell(connection, new, outcome)
        return outcomes

    def _tell(self, connection: Connection, new: _Append, last_seq: int) -> None:
        first_seq = last_seq - len(new.events) + 1
        self._on_stored(connection, new.claim.task_id, list(enumerate(new.events, first_seq)))

    def _insert_all(self, connection: Connection, appends: Sequence[_Append]) -> list[int | Exception]:
        tails = queries.find_tails(connection, list(dict.fromkeys(new.claim for new in appends)))
        last_seqs = {claim.task_id: last_seq for claim, last_seq in tails.items()}
        at = iso(self._clock())
        rows: list[queries.Row] = []
        outcomes: list[int | Exception] = []
        for new in appends:
            task_id = new.claim.task_id
            if new.claim not in tails:
                outcomes.append(Fenced(f"task {task_id}: {new.claim.attempt} may not write any more"))
                continue
            first_seq = last_seqs[task_id] + 1
            frames = tuple([_frame(task_id, seq, at, event) for seq, event in enumerate(new.events, first_seq)])
            if frames:
                rows += [(task_id, seq, frame) for seq, frame in enumerate(frames, first_seq)]
                notify(connection, Notice("log", task_id, first_seq, frames))
            last_seqs[task_id] += len(frames)
            outcomes.append(last_seqs[task_id])
        if rows:
            queries.store(connection, {row[0]: last_seqs[row[0]] for row in rows}, rows)
        return outcomes

    async def read_page(self, task_id: int, *, after: int, most: int = PAGE) -> Page:
        """The next frames with a `seq` above `after`, at most so many, and PAGE_BYTES of them, but at least one."""
        rows = await self._database.find_all(queries.AFTER, task_id=task_id, after=after, most=most)
        frames = _within(PAGE_BYTES, [row[0] for row in rows])
        if len(rows) == most or len(frames) < len(rows):
            return Page(frames, is_last=False)
        if frames:
            return Page(frames, is_last=True, tail=frames[-1])
        last = await self._database.find_all(queries.LAST, task_id=task_id)
        return Page([], is_last=True, tail=last[0][0] if last else None)

    async def read_tail(self, task_id: int, count: int) -> list[bytes]:
        """The last `count` frames, in order."""
        return await self._database.scan(lambda connection: queries.read_tail(connection, task_id, count))

    async def read_all(self, task_id: int) -> list[bytes]:
        """Every frame of the task, in order."""
        return await self._database.scan(lambda connection: queries.read_all(connection, task_id))

    def watching(self, task_id: int) -> AbstractContextManager[asyncio.Event]:
        """Watch the task's log: the event is set whenever it has grown. Clear it, read, then wait for it."""
        return self._wakeups.watching(task_id)


def _or_raise(outcome: int | Exception) -> int:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _within(most_bytes: int, frames: list[bytes]) -> list[bytes]:
    """The first of the frames that have no more bytes than this together, or the first alone."""
    if sum(map(len, frames)) <= most_bytes:
        return frames
    sizes = accumulate(map(len, frames))
    return frames[: max(1, sum(size <= most_bytes for size in sizes))]


def _frame(task_id: int, seq: int, at: str, new: NewEvent) -> bytes:
    body = {"v": 1, "seq": seq, "at": at, "task_id": task_id, "type": new.type, **new.fields}
    return encode_event(seq, new.type, orjson.dumps(body))


def frame_seq(frame: bytes) -> int:
    """The number of a frame's event."""
    return int(frame[4 : frame.index(b"\n")])


def is_finished(frame: bytes) -> bool:
    """Whether the frame is a `task.finished`."""
    return frame.startswith(b"event: task.finished\n", frame.index(b"\n") + 1)


def frame_body(frame: bytes) -> bytes:
    """The JSON object inside a frame."""
    return frame[frame.index(b"\ndata: ") + 7 : -2]
