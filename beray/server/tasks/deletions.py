"""How a task goes, once it has been hidden: its run, its files, what the engine knows of it, its row.

A deletion that is cut anywhere is finished later: the row goes last. Nor does it go before it is known that the files
are looked for where all processes have them: they would stay for ever.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from sqlalchemy.exc import DBAPIError

from beray.server.clock import Clock
from beray.server.db import tasks as queries
from beray.server.db.connect import Database
from beray.server.db.faults import one_line
from beray.server.engine.base import Engine
from beray.server.errors import Refused
from beray.server.tasks.control import RunControl
from beray.server.work_dirs.work_dir import WorkDirs

REMOVE_SECONDS = 120  # for a run in another process to be over: a stop takes 1 s, a dead process' takeover 15
LOOK_SECONDS = 0.02  # first pause between looks whether a run is over, or where the files are
FOLDER_AGAIN_SECONDS = 5  # the folder is looked at every 2 s
PURGE_PAGE = 100  # tasks looked up at once
EVENTS_PAGE = 1000  # removed in one write: some 40 ms on SQLite with events of 1 kB (7.4 s for 200,000 of them)
FINISHED_AT_ONCE = 8  # each may wait for a run to be over
OTHERS_DELETE_MS = 300_000  # a deletion that old is no longer at work in another process

log = logging.getLogger("beray.tasks")


class DeletionsFailed(OSError):
    """Some tasks could not be deleted. They are hidden, and tried again.

    Args:
        deleted: How many were.
        failures: Why each of the others was not.
    """

    def __init__(self, deleted: int, failures: Sequence[Exception]) -> None:
        first = one_line(failures[0]) or type(failures[0]).__name__
        super().__init__(f"{deleted} tasks were deleted, {len(failures)} could not be; the first: {first}")
        self.deleted = deleted
        self.failures = tuple(failures)


class Deletions:
    """Removes hidden tasks, each once at a time.

    Args:
        is_alone: Whether no other process deletes tasks of this database.

    Attributes:
        engine: What runs the tasks; None until it works.
        is_folder_right: Whether the files are where the other processes have them; None: not known yet.
    """

    def __init__(
        self, *, database: Database, work_dirs: WorkDirs, control: RunControl, clock: Clock, is_alone: bool
    ) -> None:
        self._database = database
        self._work_dirs = work_dirs
        self._control = control
        self._clock = clock
        self._is_alone = is_alone
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._finishing = asyncio.Lock()
        self.engine: Engine | None = None
        self.is_folder_right: Callable[[], bool | None] = lambda: True

    def start(self, task_id: int, runs: int) -> "asyncio.Task[None]":
        """Remove a task that has been hidden, in the background; the job, also if it is at work already."""
        job = self._jobs.get(task_id)
        if job is None:
            job = self._jobs[task_id] = asyncio.create_task(self._remove(task_id, runs))
            job.add_done_callback(lambda done: self._note_end(task_id, done))
        return job

    def _note_end(self, task_id: int, job: "asyncio.Task[None]") -> None:
        del self._jobs[task_id]
        if job.cancelled() or (error := job.exception()) is None:
            return
        is_ours = not isinstance(error, DBAPIError | OSError | Refused)
        why = one_line(error) or type(error).__name__
        log.error(
            "deleting task %s failed and will be tried again: %s",
            task_id,
            why,
            extra={"task_id": task_id},
            exc_info=error if is_ours else None,
        )

    async def _remove(self, task_id: int, runs: int) -> None:
        self._control.stop(task_id)
        await self._control.wait_over(task_id)
        if self.engine is not None:
            await self._wait_not_running(self.engine, task_id, runs)
        await _wait_until(self._has_looked)
        self.check_folder()
        await asyncio.to_thread(self._work_dirs.delete, task_id)
        if self.engine is not None:
            await self.engine.purge(task_id, runs)
        while await self._database.write(partial(queries.delete_events, task_id=task_id, limit=EVENTS_PAGE)) > 0:
            pass  # a whole log at once would keep all other writes waiting for seconds
        await self._database.write(lambda connection: queries.delete_task(connection, task_id))
        log.info("task deleted", extra={"task_id": task_id})

    async def _wait_not_running(self, engine: Engine, task_id: int, runs: int) -> None:
        """Wait until no process works on the task any more: its files would come back."""

        async def is_over() -> bool:
            return not await engine.is_running(task_id, runs)

        await _wait_until(is_over)

    async def _has_looked(self) -> bool:
        return self.is_folder_right() is not None

    def check_folder(self) -> None:
        """Whether a task may be deleted here, as far as is known.

        Raises:
            Refused: disk_unavailable: the other processes have the files elsewhere.
        """
        if self.is_folder_right() is False:
            raise Refused("disk_unavailable", retry_after_seconds=FOLDER_AGAIN_SECONDS)

    def _require_ready(self) -> Engine:
        self.check_folder()
        if self.engine is None or self.is_folder_right() is None:
            raise Refused("starting", retry_after_seconds=1)
        return self.engine

    async def finish(self) -> list[Exception]:
        """Go on with deletions that failed, or that a process did not finish; why some failed again.

        Only those that no other process is at work on; none before the engine works and the files are known to be here.
        """
        async with self._finishing:
            return await self.remove_all(await self.list_hidden())

    async def remove_all(self, hidden: Sequence[tuple[int, int]]) -> list[Exception]:
        """Remove hidden tasks, given by id and run count; why some failed. As `finish`, none before that can be."""
        failures: list[Exception] = []
        left = iter(hidden)
        await asyncio.gather(*(self._finish_some(left, failures) for _ in range(FINISHED_AT_ONCE)))
        return failures

    async def _finish_some(self, hidden: Iterator[tuple[int, int]], failures: list[Exception]) -> None:
        for task_id, runs in hidden:
            if self.engine is None or not self.is_folder_right():
                return
            try:
                await self.start(task_id, runs)
            except Exception as error:  # the job has told it; one that can't be removed must not keep the others
                failures.append(error)

    async def list_hidden(self) -> Sequence[tuple[int, int]]:
        """Id and run count of the tasks that `finish` removes."""
        before = self._clock() - (0 if self._is_alone else OTHERS_DELETE_MS)
        return await self._database.scan(lambda connection: queries.list_hidden(connection, before))

    async def count_ended(self, before: int) -> int:
        """How many tasks of all users ended before a time (ms since the epoch)."""
        return await self._database.scan(lambda connection: queries.count_ended(connection, before))

    async def purge(self, before: int) -> int:
        """Delete the tasks that ended before a time, and what the engine keeps of such runs; how many tasks.

        First those are finished that were to be deleted before.

        Raises:
            Refused: starting; disk_unavailable.
            DeletionsFailed: Some can't be removed; all others have been.
        """
        engine = self._require_ready()
        failures = await self.finish()
        purged = 0
        while page := await self._database.scan(lambda connection: queries.list_ended(connection, before, PURGE_PAGE)):
            for task_id, user_id in page:
                self._require_ready()
                job = await self._begin_purge(task_id, user_id, before)
                if job is None:  # its user, or another process, was faster, or it has been begun again
                    continue
                try:
                    await job
                    purged += 1
                except OSError as error:
                    failures.append(error)
        await engine.purge_ended(before)
        if failures:
            raise DeletionsFailed(purged, failures)
        return purged

    async def _begin_purge(self, task_id: int, user_id: int, before: int) -> "asyncio.Task[None] | None":
        now = self._clock()
        hidden = await self._database.write(
            lambda connection: queries.hide_task(connection, user_id, task_id, now, ended_before=before)
        )
        return None if hidden is None else self.start(task_id, hidden[1])


async def _wait_until(look: Callable[[], Awaitable[bool]]) -> None:
    pause = LOOK_SECONDS
    async with asyncio.timeout(REMOVE_SECONDS):
        while not await look():
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
