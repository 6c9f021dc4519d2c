"""The port to durable execution: a task submitted is run to its end, over crashes, by some worker.

An engine is given `run_task` and knows nothing about tasks but their ids.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from sqlalchemy import Connection

RunTask = Callable[[int, int], Awaitable[None]]
"""`await run_task(task_id, run)`: one run of a task to its end. After a crash it is called again, perhaps in another
process: what the run has done until then it knows by itself."""


class Displaced(Exception):
    """Raised by `RunTask`: another attempt has the run. Nothing is recorded of this one, least of all that it ended."""


class Engine(Protocol):
    """The queue of runs, as every process sees it; one that works (`Worker`) also runs them."""

    async def load(self) -> None:
        """Load the library, for which `start` would take longest. May be left out."""
        ...

    async def start(self) -> None:
        """Connect; a worker begins to work."""
        ...

    def submit(self, connection: Connection, *, task_id: int, run: int, user_id: int) -> None:
        """Queue a run within the caller's transaction: a rollback drops it, the commit wakes the workers."""
        ...

    def wake(self) -> None:
        """Look for queued runs now instead of at the next poll."""
        ...

    async def is_running(self, task_id: int, runs: int) -> bool:
        """Whether one of the task's runs, 1 to `runs`, goes on in a process that lives."""
        ...

    async def count_running(self) -> Mapping[str, int]:
        """How many runs each process has taken and not ended, by its id; those without any are left out."""
        ...

    async def purge(self, task_id: int, runs: int) -> None:
        """Forget everything recorded about the task's runs, 1 to `runs`."""
        ...

    async def purge_ended(self, before: int) -> int:
        """Forget runs that ended before a time (ms since the epoch); how many."""
        ...

    async def close(self) -> None:
        """Let go; a worker stops without ending its runs: they go on elsewhere, or at the next start."""
        ...


class Worker(Engine, Protocol):
    """An engine that runs what is queued, beside other processes' workers.

    `start` makes runs of this process' own earlier life go on.
    """

    async def recover_dead(self) -> int:
        """Take over the runs of processes whose lease has lapsed; how many processes still have some afterwards."""
        ...

    def pause(self, is_paused: bool) -> None:
        """Claim no more runs, or some again; those that go on are left alone."""
        ...

    async def cut(self) -> None:
        """End the runs of this process as a crash would, and claim no others until `go_on`: its lease has lapsed."""
        ...

    async def go_on(self) -> None:
        """The lease holds again: queue the runs that were cut, unless others have taken them, and work."""
        ...
