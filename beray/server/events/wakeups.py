"""Who waits in this process for a task's next event is woken here, wherever it was committed."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from beray.server.db.notices import Notice


class Wakeups:
    """Sets an `asyncio.Event` of everybody who watches a task when its log has grown. Lives on one event loop."""

    def __init__(self) -> None:
        self._watchers: dict[int, set[asyncio.Event]] = {}

    def hear(self, notices: Sequence[Notice]) -> None:
        """Wake who watches a task whose log has grown, or which is gone."""
        for notice in notices:
            if notice.kind == "all":
                self.wake_all()
            elif notice.kind == "log":
                for changed in self._watchers.get(notice.task_id, ()):
                    changed.set()

    def wake_all(self) -> None:
        """Wake every watcher: something may have been missed, or the server is closing."""
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()

    @contextmanager
    def watching(self, task_id: int) -> Iterator[asyncio.Event]:
        """An event that is set at each wake of the task. Clear it, then read, then wait for it: nothing is missed."""
        changed = asyncio.Event()
        self._watchers.setdefault(task_id, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers[task_id]
            watchers.discard(changed)
            if not watchers:
                del self._watchers[task_id]


async def wait_changed(changed: asyncio.Event, timeout_seconds: float) -> bool:
    """Wait for a watcher's event; False when the time is up."""
    try:
        async with asyncio.timeout(timeout_seconds):  # before Python 3.12 `wait_for` can lose a cancellation to a wake
            await changed.wait()
    except TimeoutError:
        return False
    return True
