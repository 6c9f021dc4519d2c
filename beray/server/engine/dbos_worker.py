"""Runs what is queued, on DBOS Transact (see `dbos_queue.py`).

More traps met:

- Coroutines run on the loop that was running where `launch` was called. Launching takes 1 to 2 s, so it happens in a
  thread and the loop is handed over afterwards.
- The library only polls, and keeps a queue's limits for all workers alike: this worker claims by itself, at a `wake`
  (median 9 ms from commit to start, against 300 ms by a poll of 0.5 s) and at its own poll. The library listens to no
  queue of ours.
- It makes its own thread pool the loop's default, and shuts that down with itself: the loop gets a new one at `close`.
- A `CancelledError` from the workflow is not recorded: the run stays pending and is recovered. That is how `close` and
  `cut` leave runs unfinished.
- At launch it recovers only what this executor id has left; nobody looks after processes that died. `recover_dead`
  does, by the library's private `_recover_pending_workflows`, which swallows errors: it is called until none is left.
- One executor id must never belong to an old and a new process at once: on PostgreSQL each process has its own.
"""

import asyncio
import contextlib
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from beray.server.clock import system_clock
from beray.server.db.faults import one_line
from beray.server.db.processes import LIVES
from beray.server.engine.base import Displaced, RunTask
from beray.server.engine.dbos_queue import (
    APPLICATION_NAME,
    APPLICATION_VERSION,
    QUEUE,
    WORKFLOW,
    DbosQueue,
    library_url,
    workflow_id,
)

LOCAL_EXECUTOR = "local"  # one process owns an SQLite file (server.lock), so what is pending was ours
POLL_SECONDS = 0.5  # only a safety net beside `wake`; 23 commits/s at 0.1 s would be paid for nothing
LOST_SECONDS = 5.0  # between looks for runs that were claimed but not begun
CONFLICT_SECONDS = 0.05  # after losing a claim to another worker; at most twice that
MAX_RECOVERIES = 1_000_000  # how often a run is taken up again is the runner's to decide
CLOSE_SECONDS = 5

_DEAD = text(
    "SELECT DISTINCT w.executor_id, EXISTS (SELECT 1 FROM process p WHERE p.id = w.executor_id)"  # noqa: S608  # only constants
    " FROM dbos.workflow_status w"
    " WHERE w.status = 'PENDING' AND w.application_version = :version"
    f" AND NOT EXISTS (SELECT 1 FROM process p WHERE p.id = w.executor_id AND {LIVES})"
)
_FORGET_DEAD = text(
    f"DELETE FROM process p WHERE NOT ({LIVES}) AND NOT EXISTS"  # noqa: S608  # only constants
    " (SELECT 1 FROM dbos.workflow_status w WHERE w.status = 'PENDING' AND w.executor_id = p.id)"
)

# The users with queued runs, and how many of each go on. As the library finds them (each user is a seek in its index of
# what is in flight, which SQLite takes by these very words), but as one prepared statement instead of two that are
# built anew at each look.
_QUEUED = "queue_name = :queue AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')"
_GOING_ON = "queue_name = :queue AND status = 'PENDING' AND status IN ('ENQUEUED', 'PENDING')"
_WAITING = """
    WITH RECURSIVE waiting (who) AS (
        SELECT min(queue_partition_key) FROM {table} WHERE {queued} AND queue_partition_key IS NOT NULL
        UNION ALL
        SELECT (SELECT min(queue_partition_key) FROM {table} WHERE {queued} AND queue_partition_key > waiting.who)
        FROM waiting WHERE waiting.who IS NOT NULL
    )
    SELECT who, (SELECT count(*) FROM {table} WHERE {going_on} AND queue_partition_key = who) FROM waiting
    WHERE who IS NOT NULL
"""
# The library's claim of one run, where no other process can be in the way: it builds five statements anew for each
# claim, some 5 ms of processor time. What this leaves in the row is the same (a test compares).
_CLAIM = text(
    "UPDATE workflow_status SET status = 'PENDING', owner_xid = :owner, executor_id = :executor,"  # noqa: S608 - only constants
    " application_version = :version, application_name = :application, rate_limited = FALSE,"
    " recovery_attempts = recovery_attempts + 1, started_at_epoch_ms = :now, updated_at = :now"
    " WHERE workflow_uuid = (SELECT workflow_uuid FROM workflow_status"
    f" WHERE {_QUEUED} AND application_version = :version AND queue_partition_key = :who"
    " ORDER BY priority, created_at LIMIT 1) RETURNING workflow_uuid"
)

log = logging.getLogger("beray.engine")


class DbosWorker(DbosQueue):
    """Durable execution in this process."""

    def __init__(
        self, url: URL, run_task: RunTask, *, per_user: int, per_process: int, executor_id: str = LOCAL_EXECUTOR
    ) -> None:
        super().__init__(url)
        self._run_task = run_task
        self._per_user = per_user
        self._per_process = per_process
        self._executor_id = executor_id
        self._dbos: Any = None
        self._queue: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._claims: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        # Runs claimed and not over, each with the token of its claim; changed by the claiming thread and by the loop.
        self._held: dict[str, str | None] = {}
        self._silent: list[str] = []  # processes that seemed dead at the last look
        self._claiming = threading.Lock()
        self._may_wait = True  # whether runs may be queued that were seen, and not claimed for want of a place
        table = "dbos.workflow_status" if self._is_shared else "workflow_status"
        self._waiting = text(_WAITING.format(table=table, queued=_QUEUED, going_on=_GOING_ON))
        self._is_cut = False
        self._is_paused = False

    async def start(self) -> None:
        """See `Worker`."""
        self._loop = asyncio.get_running_loop()
        await super().start()
        # The loop on which coroutines run: launched from a thread, the library could not see it.
        self._dbos._background_event_loop._main_loop = self._loop
        self._claims = asyncio.create_task(self._claim_forever())

    def _launch(self) -> None:
        try:
            super()._launch()
            self._launch_library()
        except Exception:
            self._dbos = None
            _destroy()  # what has begun: a later `start` begins anew
            self._disconnect()
            raise

    def _launch_library(self) -> None:
        from dbos import DBOS, DBOSConfig
        from dbos._serialization import DBOSPortableJSONSerializer

        config: DBOSConfig = {
            "name": APPLICATION_NAME,
            "system_database_url": library_url(self._url),
            "system_database_engine": self._system,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "use_listen_notify": False,
            "enable_otlp": False,
            "run_migrations": False,
        }
        self._dbos = DBOS(config=config)
        self._register_workflow(DBOS)
        DBOS.listen_queues([])
        DBOS.launch()
        self._queue = self._client._sys_db.get_queue(
            QUEUE
        )  # once: read at each claim, its row would cost a transaction
        self._queue._worker_concurrency = 1  # claimed one at a time
        self._queue._partition_concurrency = self._per_user

    def _register_workflow(self, dbos: Any) -> None:
        run_task = self._run_task

        @dbos.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)  # type: ignore[untyped-decorator]  # theirs has no types
        async def workflow(task_id: int, run: int) -> None:
            name, owner = workflow_id(task_id, run), _claim_of_this()
            current = asyncio.current_task()
            assert current is not None
            # The next of the same user can be claimed once the library has recorded the end.
            current.add_done_callback(lambda done: self._free(name, owner))
            if self._is_cut:  # claimed just before the lease lapsed
                raise asyncio.CancelledError
            try:
                await run_task(task_id, run)
            except Displaced as displaced:  # left pending: if it is still ours, `_requeue_lost` finds it
                raise asyncio.CancelledError from displaced
            finally:  # where another process has the run, the library waits here for its end
                self._free(name, owner)

    def _free(self, name: str, owner: str | None) -> None:
        """The place of a claim is free; one of the same run that came after it is another."""
        if self._held.get(name) == owner:
            self._held.pop(name, None)
        if self._may_wait:
            self.wake()

    def wake(self) -> None:
        """See `Engine`."""
        self._wanted.set()

    async def _claim_forever(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time() + LOST_SECONDS
        is_failing = False
        while True:
            pause = POLL_SECONDS
            self._wanted.clear()
            try:
                if loop.time() >= look_at:
                    look_at = loop.time() + LOST_SECONDS
                    await asyncio.to_thread(self._requeue_lost)
                if not self._is_cut and await asyncio.to_thread(self._claim):
                    pause = CONFLICT_SECONDS * (1 + random.random())  # noqa: S311  # two workers shall not meet again
                is_failing = False
            except Exception as error:  # the poll is the safety net: a claim that failed is tried there again
                if not is_failing:  # said once, not at each poll
                    log.warning("claiming queued runs failed; each poll tries again: %s", one_line(error))
                is_failing = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # before Python 3.12 `wait_for` can lose a cancellation to a wake
                    await self._wanted.wait()

    def _claim(self) -> bool:
        """Claim runs while there is room, one at a time, of whichever user has the fewest; whether a race was lost."""
        with self._claiming:
            while True:
                outcomes = [self._claim_one(key) for key in self._waiting_users() if self._has_room]
                if not any(outcomes):
                    return None in outcomes

    def _requeue_lost(self) -> None:
        """Queue again what has been claimed for this process but is not run in it: the answer to the claim was lost."""
        with self._claiming:
            system = self._client._sys_db
            for pending in system.get_pending_workflows(self._executor_id, APPLICATION_VERSION):
                if pending.workflow_id not in self._held and not self._is_cut:
                    task_id, _, run = pending.workflow_id.partition(".")
                    log.warning("run %s of task %s was claimed but not begun; queued again", run, task_id)
                    system.reenqueue_for_recovery(pending.workflow_id, [self._executor_id], QUEUE)

    @property
    def _has_room(self) -> bool:
        return not (self._is_cut or self._is_paused) and len(self._held) < self._per_process

    def _waiting_users(self) -> list[str]:
        """Partitions with queued runs whose user may have another one, those with the fewest running first."""
        self._may_wait = True  # until it is known better: a place that becomes free meanwhile is a reason to look again
        if not self._has_room:
            return []
        assert self._system is not None
        with self._system.begin() as connection:
            running: dict[str, int] = dict(connection.execute(self._waiting, {"queue": QUEUE}).tuples().all())
        self._may_wait = bool(running)
        allowed = [key for key, count in running.items() if count < self._per_user]
        random.shuffle(allowed)
        return sorted(allowed, key=lambda key: running[key])

    def _claim_one(self, key: str) -> bool | None:
        """Whether a run of the user was claimed; None if another worker was faster."""
        from dbos._core import execute_dequeued_workflow
        from dbos._utils import generate_uuid

        system = self._client._sys_db
        owner = generate_uuid()
        claimed = self._claim_shared(key, owner) if self._is_shared else self._claim_alone(key, owner)
        if claimed is None:
            return None
        for status in system.get_workflow_statuses(claimed):
            self._held[status["workflow_uuid"]] = owner
            try:
                execute_dequeued_workflow(self._dbos, status, owner)
            except Exception:
                self._held.pop(status["workflow_uuid"], None)
                raise
        return bool(claimed)

    def _claim_shared(self, key: str, owner: str) -> list[str] | None:
        """The id of a run of the user, if there is one; None if another worker was faster."""
        system = self._client._sys_db
        try:
            claimed: list[str] = system.start_queued_workflows(
                self._queue, self._executor_id, APPLICATION_VERSION, key, 0, 0, owner_xid=owner, is_latest_version=False
            )[0]
        except DBAPIError as error:
            if system.is_lock_conflict(error) or system.is_serialization_conflict(error):
                return None
            raise
        return claimed

    def _claim_alone(self, key: str, owner: str) -> list[str]:
        """The id of a run of the user, if there is one; nobody else claims."""
        assert self._system is not None
        values = {
            "queue": QUEUE,
            "who": key,
            "owner": owner,
            "executor": self._executor_id,
            "version": APPLICATION_VERSION,
            "application": APPLICATION_NAME,
            "now": system_clock(),
        }
        with self._system.begin() as connection:
            return list(connection.execute(_CLAIM, values).scalars())

    async def recover_dead(self) -> int:
        """See `Worker`."""
        left = await asyncio.to_thread(self._recover_dead)
        self.wake()
        return left

    def _recover_dead(self) -> int:
        assert self._system is not None
        silent = self._list_dead()
        # A clock that was set forward makes all others seem dead until their next beat: it takes two looks, unless they
        # have said good-bye.
        dead = [name for name, is_known in silent.items() if not is_known or name in self._silent]
        self._silent = list(silent)
        if dead:
            log.warning("taking over the runs of processes that have died: %s", ", ".join(dead))
            self._recover(dead)
        with self._system.begin() as connection:
            connection.execute(_FORGET_DEAD)
        return len(self._list_dead())

    def _list_dead(self) -> dict[str, bool]:
        """Processes that hold runs and do not live, and of each whether it is known still, or said good-bye."""
        assert self._system is not None
        with self._system.begin() as connection:
            return dict(connection.execute(_DEAD, {"version": APPLICATION_VERSION}).tuples().all())

    def _recover(self, executor_ids: list[str]) -> None:
        """`DBOS._recover_pending_workflows`, but over a handle that does not wait for a database that is away."""
        from dbos._logger import dbos_logger
        from dbos._recovery import recover_pending_workflows

        handle: Any = SimpleNamespace(_sys_db=self._client._sys_db, logger=dbos_logger)
        recover_pending_workflows(handle, executor_ids)

    async def cut(self) -> None:
        """See `Worker`."""
        self._is_cut = True
        await self._cancel_runs()
        # A claim under way may have begun some more; none begins after it.
        if await asyncio.to_thread(self._claiming.acquire, timeout=CLOSE_SECONDS):
            self._claiming.release()
        await self._cancel_runs()
        self._held.clear()

    async def _cancel_runs(self) -> None:
        running = set() if self._dbos is None else set(self._dbos._workflow_tasks)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CLOSE_SECONDS)

    def pause(self, is_paused: bool) -> None:
        """See `Worker`."""
        self._is_paused = is_paused
        self.wake()

    async def go_on(self) -> None:
        """See `Worker`."""
        left = await asyncio.to_thread(self._recover_own)
        if left:
            raise RuntimeError(f"{left} runs that were cut could not be queued again")
        self._is_cut = False
        self.wake()

    def _recover_own(self) -> int:
        self._recover([self._executor_id])
        return len(self._client._sys_db.get_pending_workflows(self._executor_id, APPLICATION_VERSION))

    async def close(self) -> None:
        """See `Worker`."""
        if self._launching is not None:
            await asyncio.gather(
                self._launching, return_exceptions=True
            )  # half launched it can't be ended: its threads would live on
        if self._dbos is not None:
            await self._close_library()
        await super().close()

    async def _close_library(self) -> None:
        self._is_cut = True
        if self._claims is not None:
            self._claims.cancel()
        for stop in self._dbos.background_thread_stop_events:
            stop.set()
        await self.cut()
        self._dbos._sys_db._retry_connection_errors = False  # what waits for a database that is away gives up
        self._dbos = None
        await asyncio.to_thread(_destroy)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="beray"))


def _claim_of_this() -> str | None:
    """The token of the claim by which the current run goes on."""
    from dbos._context import get_local_dbos_context

    context = get_local_dbos_context()
    return None if context is None else context.owner_xid


def _destroy() -> None:
    from dbos import DBOS

    DBOS.destroy(destroy_registry=True)
