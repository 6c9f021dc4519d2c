"""Who waits for a task's next event is woken here, within one process."""

import asyncio


class LocalWakeups:
    """Wakes waiters of a task when its log has grown. Lives on one event loop."""

    def __init__(self) -> None:
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._last_seq: dict[int, int] = {}  # only of tasks somebody waits for

    def wake(self, task_id: int, last_seq: int) -> None:
        """Events of the task up to `last_seq` have been committed."""
        waiters = self._waiters.pop(task_id, None)
        if waiters is None:
            return
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, task_id: int, *, after: int, timeout_seconds: float) -> bool:
        """Wait for the next `wake` of the task; False when the time is up.

        A commit between the caller's read and this call would be missed, so the caller reads again after at most
        `timeout_seconds`, or uses `watch` around its read.
        """
        waiter = self.watch(task_id)
        try:
            await asyncio.wait_for(asyncio.shield(waiter), timeout_seconds)
        except TimeoutError:
            return False
        finally:
            self.unwatch(task_id, waiter)
        return True

    def watch(self, task_id: int) -> "asyncio.Future[None]":
        """A future that is done at the task's next wake; begin to watch before reading, and nothing is missed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, set()).add(waiter)
        return waiter

    def unwatch(self, task_id: int, waiter: "asyncio.Future[None]") -> None:
        """Stop watching."""
        waiters = self._waiters.get(task_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[task_id]
