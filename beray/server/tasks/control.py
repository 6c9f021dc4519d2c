"""The runs that go on in this process, and how they are told to stop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from beray.server.db.connect import Queries
from beray.server.db.tasks import list_to_stop


class RunHandle:
    """One run in progress. Its two events: somebody wants it stopped; it is over."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.over = asyncio.Event()


class RunControl:
    """Registry of the runs in this process."""

    def __init__(self) -> None:
        self._handles: dict[int, RunHandle] = {}

    @contextmanager
    def running(self, task_id: int) -> Iterator[RunHandle]:
        """Register a run for as long as the block lasts."""
        handle = self._handles[task_id] = RunHandle()
        try:
            yield handle
        finally:
            handle.over.set()
            if self._handles.get(task_id) is handle:
                del self._handles[task_id]

    def stop(self, task_id: int) -> bool:
        """Tell the task's run to stop, if it is in this process; whether it is."""
        handle = self._handles.get(task_id)
        if handle is not None:
            handle.stop.set()
        return handle is not None

    async def stop_asked(self, database: Queries) -> None:
        """Tell those runs to stop that are to: what was asked for is looked up, for its notice may be of a run before.

        Raises:
            Refused: database_unavailable.
        """
        running = dict(self._handles)  # before the look: what it finds is of these runs, or of those before them
        if not running:
            return
        for task_id in await database.read(lambda connection: list_to_stop(connection, list(running))):
            running[task_id].stop.set()

    async def wait_over(self, task_id: int) -> None:
        """Wait until no run of the task goes on in this process."""
        handle = self._handles.get(task_id)
        if handle is not None:
            await handle.over.wait()
