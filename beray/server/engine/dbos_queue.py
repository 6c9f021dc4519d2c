"""The queue of runs on DBOS Transact, as every process sees it; `dbos_worker.py` runs what is in it.

These two files are all that knows the library, its private calls included. Pinned to `>=3.4,<3.5`; the tests of
`tests/server/engine` fail if a call used here changes. Traps met (each costs hours):

- The application version defaults to a hash of the source, and rows of other versions are never claimed: it is set by
  hand, and changes only when a process of the version before could not go on with a run.
- The default serializer is pickle: JSON is used.
- On SQLite it sets neither WAL nor synchronous: it gets an engine of ours. Its migrations say BEGIN themselves, so that
  engine must leave transactions to the driver (`isolation_level = "IMMEDIATE"`).
- A queue's limits are kept in the database, for all workers alike. Ours are each worker's own, so workers claim by
  themselves and the row only names the queue.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text

from beray.server.db.notices import Notice, notify
from beray.server.db.processes import LIVES

APPLICATION_NAME = "beray"
APPLICATION_VERSION = "agent-1"
QUEUE = "tasks"
WORKFLOW = "run_task"
ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
PURGE_PAGE = 500  # runs forgotten in one transaction
CONNECTIONS = 6  # on PostgreSQL; the library's threads share them
MIGRATION_SECONDS = 120  # a fresh schema takes 2 s
MIGRATION_LOOK_SECONDS = 0.1
MIGRATION_LOCK = 0x42655262  # processes that start together make the library's schema one after the other

_RUNNING = text(
    "SELECT count(*) FROM dbos.workflow_status w JOIN process p ON p.id = w.executor_id"  # noqa: S608  # only constants
    f" WHERE {LIVES} AND w.status = 'PENDING' AND w.workflow_uuid = ANY(:ids)"  # constants
)

# By the very words of the library's index of what is in flight, or SQLite reads every run there has been.
_TAKEN = (
    "SELECT executor_id, count(*) FROM {table} WHERE queue_name = :queue AND status = 'PENDING'"
    " AND status IN ('ENQUEUED', 'PENDING') GROUP BY executor_id"
)

log = logging.getLogger("beray.engine")


class DbosQueue:
    """Submits runs, and forgets them. The engine of a process that runs none itself."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._is_shared = url.get_backend_name() != "sqlite"
        self._client: Any = None
        self._system: Engine | None = None
        self._launching: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """See `Engine`."""
        await asyncio.to_thread(import_module, "dbos")

    async def start(self) -> None:
        """See `Engine`."""
        self._launching = asyncio.create_task(asyncio.to_thread(self._launch))
        await asyncio.shield(self._launching)  # a thread can't be cancelled: `close` waits for it

    def _launch(self) -> None:
        from dbos import DBOS, DBOSClient
        from dbos._serialization import DBOSPortableJSONSerializer

        logging.getLogger("dbos").setLevel(logging.WARNING)
        logging.getLogger("dbos").addFilter(_is_news)
        self._system = self._make_engine()
        with self._alone():
            DBOS.migrate(library_url(self._url))
            self._client = DBOSClient(
                system_database_engine=self._system,
                serializer=DBOSPortableJSONSerializer(),
                use_listen_notify=False,
                application_name=APPLICATION_NAME,
                retry_connection_errors=False,  # it would try for ever, in a thread that nobody can end
            )
            # Without a limit of partitions the library refuses the users' keys; what counts are the workers' own.
            self._client.register_queue(QUEUE, partition_concurrency=1_000_000, polling_interval_sec=60)

    def _make_engine(self) -> Engine:
        if self._is_shared:
            from beray.server.db.postgres import postgres_engine

            return postgres_engine(self._url, pool_size=CONNECTIONS)
        assert self._url.database is not None
        return _sqlite_engine(Path(self._url.database))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process is in this block."""
        if not self._is_shared:
            yield
            return
        assert self._system is not None
        # The library makes indexes CONCURRENTLY, which waits for every open transaction, also for one that waits for a
        # lock: so nobody waits in the database.
        with self._system.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            deadline = time.monotonic() + MIGRATION_SECONDS
            while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}).scalar():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has been migrating the database for {MIGRATION_SECONDS} s")
                time.sleep(MIGRATION_LOOK_SECONDS)
            try:
                yield
            finally:
                connection.invalidate()  # ends the session, and with it the lock

    def submit(self, connection: Connection, *, task_id: int, run: int, user_id: int) -> None:
        """See `Engine`."""
        self._client.enqueue_in_transaction(
            connection,
            {
                "queue_name": QUEUE,
                "workflow_name": WORKFLOW,
                "workflow_id": workflow_id(task_id, run),
                "queue_partition_key": str(user_id),
                "app_version": APPLICATION_VERSION,
            },
            task_id,
            run,
        )
        notify(connection, Notice("queue"))

    def wake(self) -> None:
        """See `Engine`: nothing is run here."""

    async def is_running(self, task_id: int, runs: int) -> bool:
        """See `Engine`."""
        ids = [workflow_id(task_id, run) for run in range(1, runs + 1)]
        return await asyncio.to_thread(self._is_running, ids)

    def _is_running(self, ids: list[str]) -> bool:
        if self._is_shared:
            assert self._system is not None
            with self._system.begin() as connection:
                return bool(connection.execute(_RUNNING, {"ids": ids}).scalar_one())
        found = self._client.list_workflows(workflow_ids=ids, status="PENDING", load_input=False, load_output=False)
        return bool(found)

    async def count_running(self) -> Mapping[str, int]:
        """See `Engine`."""
        return await asyncio.to_thread(self._count_running)

    def _count_running(self) -> Mapping[str, int]:
        assert self._system is not None
        table = "dbos.workflow_status" if self._is_shared else "workflow_status"
        with self._system.begin() as connection:
            rows = connection.execute(text(_TAKEN.format(table=table)), {"queue": QUEUE})
            return dict(rows.tuples().all())

    async def purge(self, task_id: int, runs: int) -> None:
        """See `Engine`."""
        ids = [workflow_id(task_id, run) for run in range(1, runs + 1)]
        await asyncio.to_thread(self._client.delete_workflows, ids)

    async def purge_ended(self, before: int) -> int:
        """See `Engine`."""
        until = datetime.fromtimestamp(before / 1000, UTC).isoformat()
        purged = 0
        while ids := await asyncio.to_thread(self._list_ended, until):
            await asyncio.to_thread(self._client.delete_workflows, ids)
            purged += len(ids)
        return purged

    def _list_ended(self, until: str) -> list[str]:
        found = self._client.list_workflows(
            status=ENDED, completed_before=until, limit=PURGE_PAGE, load_input=False, load_output=False
        )
        return [status.workflow_id for status in found]

    async def close(self) -> None:
        """See `Engine`."""
        if self._launching is not None:  # half launched it can't be ended: its threads would live on
            await asyncio.gather(self._launching, return_exceptions=True)
        await asyncio.to_thread(self._disconnect)

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.destroy()
        if self._system is not None:
            self._system.dispose()


def workflow_id(task_id: int, run: int) -> str:
    """The library's id of a run. The same id twice would silently give the old result, hence the run in it."""
    return f"{task_id}.{run}"


def library_url(url: URL) -> str:
    """The database as the library wants to be told of it."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning tells something.

    A cancelled step is what every stop and every close consists of. A run whose record is gone was a deleted task's.
    That the database is away is said once, by our own listener; the library would say it several times a second.
    """
    from dbos._error import DBOSNonExistentWorkflowError

    error = record.exc_info[1] if record.exc_info else None
    said = record.getMessage()
    return not (
        said.startswith("Asyncio task cancelled")
        or "(psycopg.OperationalError)" in said
        or isinstance(error, DBOSNonExistentWorkflowError)
    )


def _sqlite_engine(path: Path) -> Engine:
    from beray.server.db.sqlite import BUSY_TIMEOUT_MS, add_unixepoch

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
