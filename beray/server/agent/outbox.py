"""Holds events back for the moment until the next ones: a commit costs more than what is in it.

Only what is followed at once is held: an answer until its first call begins, a call's end until the next one begins or
the turn ends. What has been held and not been committed is as if it had not been done; a takeover does it again.
"""

from collections.abc import Callable

from sqlalchemy import Connection

from beray.server.agent.run import Emit
from beray.server.events.log import NewEvent

Also = Callable[[Connection], None]


class Outbox:
    """The way of a run's events to the log; itself an `Emit`, which lets what is held go first."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._events: list[NewEvent] = []
        self._also: list[Also] = []

    def hold(self, *events: NewEvent, also: Also) -> None:
        """Let these be committed with the next ones."""
        self._events += events
        self._also.append(also)

    async def flush(self) -> None:
        """Commit what is held."""
        if self._events:
            await self()

    async def __call__(self, *events: NewEvent, also: Also | None = None) -> None:
        """See `Emit`."""
        together, changes = [*self._events, *events], [*self._also, *([] if also is None else [also])]
        self._events, self._also = [], []

        def change(connection: Connection) -> None:
            for each in changes:
                each(connection)

        await self._emit(*together, also=change if changes else None)
