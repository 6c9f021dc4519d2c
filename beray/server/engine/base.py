"""The port to durable execution: a task submitted is run to its end, over crashes, by some worker.

An engine is given `run_task` and knows nothing about tasks but their ids.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sqlalchemy import Connection

Step = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""`await step(name, work)`: runs `work` once and records its JSON result; after a crash the recorded result is returned
without running it again. Where the record could not be stored (disk full) `work` may be run again after a crash, so
what it has done it must know by itself. Names must come in the same order on every attempt. Results must be small (a
few KB)."""

RunTask = Callable[[int, int, Step], Awaitable[None]]
"""`await run_task(task_id, run, step)`: one run of a task from its last finished step to its end."""


class Engine(Protocol):
    """Durable execution of task runs."""

    async def start(self) -> None:
        """Begin to work; unfinished runs of this process' earlier life go on."""
        ...

    def submit(self, connection: Connection, *, task_id: int, run: int, user_id: int) -> None:
        """Queue a run within the caller's transaction: a rollback drops it."""
        ...

    def wake(self) -> None:
        """Look for queued runs now instead of at the next poll; called after a commit that submitted."""
        ...

    async def purge(self, task_id: int, runs: int) -> None:
        """Forget everything recorded about the task's runs, 1 to `runs`."""
        ...

    async def close(self) -> None:
        """Stop working without ending runs: they go on at the next start."""
        ...
