"""Holds events back for the moment until the next ones: a commit costs more than what is in it.

An append that has begun when the run's time is up is finished first: cut, it may be in the log all the same, and the
run would not know. A stop waits for nothing.

Only what is followed at once is held: an answer until its first call begins, a call's end until the next one begins or
the turn ends, a turn's end until the next one begins. Where something has to be waited for in between, a call's end is
committed first (`flush_to_read`). What is held when the run is cut is committed if that can be done at once; what
never is, is as if it had not been done: a takeover does it again.
"""

import asyncio
from collections.abc import Callable

from sqlalchemy import Connection

from beray.server.agent.run import Emit
from beray.server.events.log import NewEvent

Also = Callable[[Connection], None]


class Outbox:
    """The way of a run's events to the log; itself an `Emit`, which lets what is held go first.

    Args:
        emit: Appends them.
        is_late: Whether the run's time is up, so that it is for this that a caller is cancelled.
        reads_inline: Whether a read of the database is done without a wait.

    Attributes:
        included: Changes that are part of others: in a commit with these they are left out.
    """

    def __init__(self, emit: Emit, is_late: Callable[[], bool], *, reads_inline: bool) -> None:
        self._emit = emit
        self._is_late = is_late
        self._reads_inline = reads_inline
        self.included: dict[Also, Also] = {}
        self._events: list[NewEvent] = []
        self._also: list[Also] = []

    def hold(self, *events: NewEvent, also: Also | None = None) -> None:
        """Let these be committed with the next ones."""
        self._events += events
        self._also += [] if also is None else [also]

    async def flush(self) -> None:
        """Commit what is held."""
        if self._events:
            await self()

    async def flush_to_read(self) -> None:
        """Commit what is held, if the read that comes next would have it wait."""
        if not self._reads_inline:
            await self.flush()

    async def __call__(self, *events: NewEvent, also: Also | None = None) -> None:
        """See `Emit`."""
        self.hold(*events, also=also)
        together, changes = self._events, self._each_once(self._also)
        self._events, self._also = [], []

        def change(connection: Connection) -> None:
            for each in changes:
                each(connection)

        await self._append(*together, also=change if changes else None)

    def _each_once(self, changes: list[Also]) -> list[Also]:
        """What writes the run's memory writes it as it is at the commit, so the last time is enough."""
        latest = list(dict.fromkeys(reversed(changes)))[::-1]
        return [change for change in latest if self.included.get(change) not in latest]

    async def _append(self, *events: NewEvent, also: Also | None) -> None:
        job = asyncio.ensure_future(self._emit(*events, also=also))
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            if self._is_late():
                await job  # while the disk is full that is long; the run's end could not be stored either
            else:
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
            raise
