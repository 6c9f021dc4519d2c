"""How a task goes, once it has been hidden: its run, its files, what the engine knows of it, its row.

A deletion that is cut anywhere is finished later: the row goes last.
"""

import asyncio
import logging

from beray.server.clock import Clock
from beray.server.db import tasks as queries
from beray.server.db.connect import Database
from beray.server.engine.base import Engine
from beray.server.errors import Refused
from beray.server.tasks.control import RunControl
from beray.server.work_dirs.work_dir import WorkDirs

REMOVE_SECONDS = 120  # for a run in another process to be over: a stop takes 1 s, a dead process' takeover 15
RUNNING_LOOK_SECONDS = 0.02  # first pause between looks whether a run is over
PURGE_PAGE = 100  # tasks looked up at once

log = logging.getLogger("beray.tasks")


class Deletions:
    """Removes hidden tasks, each once at a time."""

    def __init__(self, *, database: Database, work_dirs: WorkDirs, control: RunControl, clock: Clock) -> None:
        self._database = database
        self._work_dirs = work_dirs
        self._control = control
        self._clock = clock
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self.engine: Engine | None = None

    def start(self, task_id: int, runs: int) -> "asyncio.Task[None]":
        """Remove a task that has been hidden, in the background; the job, also if it is at work already."""
        job = self._jobs.get(task_id)
        if job is None:
            job = self._jobs[task_id] = asyncio.create_task(self._remove(task_id, runs))
            job.add_done_callback(lambda done: self._note_end(task_id, done))
        return job

    def _note_end(self, task_id: int, job: "asyncio.Task[None]") -> None:
        del self._jobs[task_id]
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("a deletion failed and will be tried again", extra={"task_id": task_id}, exc_info=error)

    async def _remove(self, task_id: int, runs: int) -> None:
        self._control.stop(task_id)
        await self._control.wait_over(task_id)
        if self.engine is not None:
            await self._wait_not_running(self.engine, task_id, runs)
        await asyncio.to_thread(self._work_dirs.delete, task_id)
        if self.engine is not None:
            await self.engine.purge(task_id, runs)
        await self._database.write(lambda connection: queries.delete_task(connection, task_id))
        log.info("task deleted", extra={"task_id": task_id})

    async def _wait_not_running(self, engine: Engine, task_id: int, runs: int) -> None:
        """Wait until no process works on the task any more: its files would come back."""
        pause = RUNNING_LOOK_SECONDS
        async with asyncio.timeout(REMOVE_SECONDS):
            while await engine.is_running(task_id, runs):
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def finish(self, *, hidden_before: int) -> None:
        """Go on with deletions that failed, or that a process did not finish.

        Args:
            hidden_before: Only tasks hidden until then: other processes may be at work on younger ones.
        """
        for task_id, runs in await self._database.scan(
            lambda connection: queries.list_hidden(connection, hidden_before)
        ):
            self.start(task_id, runs)

    async def count_ended(self, before: int) -> int:
        """How many tasks of all users ended before a time (ms since the epoch)."""
        return await self._database.scan(lambda connection: queries.count_ended(connection, before))

    async def purge(self, before: int) -> int:
        """Delete the tasks that ended before a time, and what the engine keeps of such runs; how many tasks.

        Raises:
            Refused: starting.
            OSError: A work_dir can't be removed; tried again by the next purge.
        """
        if self.engine is None:
            raise Refused("starting", retry_after_seconds=1)
        purged = 0
        while page := await self._database.scan(lambda connection: queries.list_ended(connection, before, PURGE_PAGE)):
            for task_id, user_id in page:
                purged += await self._purge_one(task_id, user_id)
        await self.engine.purge_ended(before)
        return purged

    async def _purge_one(self, task_id: int, user_id: int) -> int:
        now = self._clock()
        hidden = await self._database.write(lambda connection: queries.hide_task(connection, user_id, task_id, now))
        if hidden is None:  # its user, or another process, was faster
            return 0
        await self.start(task_id, hidden[1])
        return 1
