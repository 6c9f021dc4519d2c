"""The engine on DBOS Transact: the one file that knows it, its private calls included.

Pinned to `>=3.4,<3.5`; `tests/server/engine` fails if a call used here changes. Traps met (each costs hours):

- The application version defaults to a hash of the source, and rows of other versions are never claimed: it is set by
  hand and changes only when the order of steps changes.
- The default serializer is pickle: JSON is used.
- On SQLite it sets neither WAL nor synchronous: it gets an engine of ours. Its migrations say BEGIN themselves, so that
  engine must leave transactions to the driver (`isolation_level = "IMMEDIATE"`).
- A queue registered after the launch is seen up to 1 s late: it is registered before.
- Coroutines run on the loop that was running where `launch` was called. Launching takes 1 to 2 s, so it happens in a
  thread and the loop is handed over afterwards.
- The queue is only polled: `wake` claims at once (measured, median of 8: 9 ms from
  commit to start, against 300 ms by a poll of 0.5 s).
- It makes its own thread pool the loop's default, and shuts that down with itself: the loop gets a new one at `close`.
- A `CancelledError` from the workflow is not recorded: the run stays pending and is recovered at the next launch. That
  is how `close` leaves runs unfinished.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from beray.server.db.connect import BUSY_TIMEOUT_MS, add_unixepoch, storage_fault
from beray.server.engine.base import RunTask

APPLICATION_VERSION = "agent-1"
EXECUTOR_ID = "local"  # one process owns an SQLite file (server.lock), so what is pending was ours
QUEUE = "tasks"
WORKFLOW = "run_task"
POLL_SECONDS = 0.5  # only a safety net beside `wake`; 23 commits/s at 0.1 s would be paid for nothing
MAX_RECOVERIES = 100  # a run that dies with its process that often is given up
CLOSE_SECONDS = 5

log = logging.getLogger("beray.engine")


class DbosEngine:
    """Durable execution embedded in this process, on the server's own SQLite file."""

    def __init__(self, database: Path, run_task: RunTask, *, per_user: int, per_process: int) -> None:
        self._path = database
        self._run_task = run_task
        self._per_user = per_user
        self._per_process = per_process
        self._dbos: Any = None
        self._client: Any = None
        self._launching: asyncio.Task[None] | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._claim_again = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Launch; unfinished runs of this process' earlier life go on."""
        self._loop = asyncio.get_running_loop()
        self._launching = asyncio.create_task(asyncio.to_thread(self._launch))
        await asyncio.shield(self._launching)  # a thread can't be cancelled: `close` waits for it
        # The loop on which coroutines run: launched from a thread, DBOS could not see it.
        self._dbos._background_event_loop._main_loop = self._loop

    def _launch(self) -> None:
        try:
            self._launch_parts()
        except Exception:
            self._dbos = None
            _destroy()  # what has begun: a later `start` begins anew
            raise

    def _launch_parts(self) -> None:
        from dbos import DBOS, DBOSClient, DBOSConfig
        from dbos._serialization import DBOSPortableJSONSerializer

        logging.getLogger("dbos").setLevel(logging.WARNING)
        logging.getLogger("dbos").addFilter(_is_news)
        serializer = DBOSPortableJSONSerializer()
        engine = _sqlite_engine(self._path)
        config: DBOSConfig = {
            "name": "beray",
            "system_database_url": f"sqlite:///{self._path}",
            "system_database_engine": engine,
            "application_version": APPLICATION_VERSION,
            "executor_id": EXECUTOR_ID,
            "serializer": serializer,
            "log_level": "WARNING",
            "use_listen_notify": False,
            "enable_otlp": False,
        }
        DBOS.migrate(f"sqlite:///{self._path}")
        self._client = DBOSClient(system_database_engine=engine, serializer=serializer, use_listen_notify=False)
        self._client.register_queue(
            QUEUE,
            worker_concurrency=self._per_process,
            partition_concurrency=self._per_user,
            polling_interval_sec=POLL_SECONDS,
        )
        self._dbos = DBOS(config=config)
        self._register_workflow(DBOS)
        DBOS.launch()

    def _register_workflow(self, dbos: Any) -> None:
        run_task = self._run_task

        async def step(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
            results: list[Any] = []

            async def recorded() -> Any:
                results.append(await work())
                return results[0]

            try:
                return await dbos.run_step_async({"name": name}, recorded)
            except OperationalError as error:
                if not results or storage_fault(error) is None:
                    raise
                log.warning("a step was done, but not recorded", extra={"step": name}, exc_info=True)
                return results[0]

        @dbos.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)  # type: ignore[untyped-decorator]  # theirs has no types
        async def workflow(task_id: int, run: int) -> None:
            try:
                await run_task(task_id, run, step)
            finally:
                self.wake()  # a slot is free now

    def submit(self, connection: Connection, *, task_id: int, run: int, user_id: int) -> None:
        """Queue a run within the caller's transaction: a rollback drops it."""
        self._client.enqueue_in_transaction(
            connection,
            {
                "queue_name": QUEUE,
                "workflow_name": WORKFLOW,
                "workflow_id": _workflow_id(task_id, run),
                "queue_partition_key": str(user_id),
                "app_version": APPLICATION_VERSION,
            },
            task_id,
            run,
        )

    def wake(self) -> None:
        """Claim queued runs now instead of at the next poll."""
        if self._dbos is None or self._loop is None or self._loop.is_closed():
            return
        if self._claiming is not None and not self._claiming.done():
            self._claim_again = True
            return
        self._claiming = self._loop.create_task(self._claim())

    async def _claim(self) -> None:
        self._claim_again = True
        while self._claim_again:
            self._claim_again = False
            try:
                await asyncio.to_thread(self._claim_in_thread)
            except Exception:  # the poll is the safety net: a claim that failed is tried there again
                log.warning("claiming queued runs failed; the next poll tries again", exc_info=True)

    def _claim_in_thread(self) -> None:
        from dbos._core import execute_dequeued_workflow
        from dbos._utils import generate_uuid

        dbos = self._dbos
        if dbos is None:  # closed since
            return
        system = dbos._sys_db
        queue = system.get_queue(QUEUE)
        for key in system.get_queue_partitions(QUEUE):
            running = dbos._active_workflows_set.count_for_queue(QUEUE)
            if running >= self._per_process:
                return
            owner = generate_uuid()
            claimed, _ = system.start_queued_workflows(
                queue,
                EXECUTOR_ID,
                APPLICATION_VERSION,
                key,
                running,
                dbos._active_workflows_set.count_for_partition(QUEUE, key),
                owner_xid=owner,
                is_latest_version=None,
            )
            for status in system.get_workflow_statuses(claimed):
                execute_dequeued_workflow(dbos, status, owner)

    async def purge(self, task_id: int, runs: int) -> None:
        """Forget everything recorded about the task's runs, 1 to `runs`."""
        ids = [_workflow_id(task_id, run) for run in range(1, runs + 1)]
        await asyncio.to_thread(self._client.delete_workflows, ids)

    async def close(self) -> None:
        """Stop working; runs are cut without being ended and go on at the next start."""
        if self._launching is not None:
            await asyncio.gather(
                self._launching, return_exceptions=True
            )  # half launched it can't be ended: its threads would live on
        if self._dbos is None:
            return
        dbos, self._dbos = self._dbos, None
        if self._claiming is not None:
            await asyncio.wait({self._claiming}, timeout=CLOSE_SECONDS)
        for stop in dbos.background_thread_stop_events:
            stop.set()
        running = set(dbos._workflow_tasks)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CLOSE_SECONDS)
        await asyncio.to_thread(_destroy)
        self._client.destroy()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="beray"))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning tells something.

    A cancelled step is what every stop and every close consists of. A run whose record is gone was a deleted task's.
    """
    from dbos._error import DBOSNonExistentWorkflowError

    error = record.exc_info[1] if record.exc_info else None
    return not (
        record.getMessage().startswith("Asyncio task cancelled") or isinstance(error, DBOSNonExistentWorkflowError)
    )


def _destroy() -> None:
    from dbos import DBOS

    DBOS.destroy(destroy_registry=True)


def _workflow_id(task_id: int, run: int) -> str:
    # The same id twice would silently give the old result, hence the run in it.
    return f"{task_id}.{run}"


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        add_unixepoch(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    return engine
