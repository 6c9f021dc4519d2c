"""The runs that go on in this process, and how they are told to stop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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

    @property
    def task_ids(self) -> list[int]:
        """Tasks whose runs go on in this process."""
        return list(self._handles)

    def stop(self, task_id: int) -> bool:
        """Tell the task's run to stop, if it is in this process; whether it is."""
        handle = self._handles.get(task_id)
        if handle is not None:
            handle.stop.set()
        return handle is not None

    async def wait_over(self, task_id: int) -> None:
        """Wait until no run of the task goes on in this process."""
        handle = self._handles.get(task_id)
        if handle is not None:
            await handle.over.wait()
