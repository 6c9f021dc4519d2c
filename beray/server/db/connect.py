"""One database for everything: our tables and the engine's.

Queries are plain functions of a SQLAlchemy `Connection`, so that several compose in one transaction; `Database` runs
them. SQLite (WAL): reads run inline on a read-only connection (a point read costs less than a thread hop: 29 us
for two look-ups), all writes go through one writer thread, which commits whatever waits as one group. Group commit is
what makes `synchronous=FULL` cheap, and one writer is what keeps SQLite from sleeping on its lock.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from beray.server.errors import STORAGE_FAULTS, Refused

T = TypeVar("T")
Query = Callable[[Connection], T]

_FAULTS: Final = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_IOERR: "database_unavailable",
    sqlite3.SQLITE_READONLY: "database_unavailable",
    sqlite3.SQLITE_CANTOPEN: "database_unavailable",
    sqlite3.SQLITE_BUSY: "database_unavailable",  # after BUSY_TIMEOUT_MS
}
BUSY_TIMEOUT_MS = 15_000  # the engine's threads write to the same file; a commit takes milliseconds
GROUP_MOST = 256  # jobs committed together at most, so that the first of them isn't kept waiting (perf: 256 rows)


class Database:
    """The server's database on one SQLite file. Open with `open`, close with `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_engine = sqlite_engine(path)
        self._read_engine = sqlite_engine(path, is_read_only=True)
        self._reader: Connection | None = None
        self._writer = _Writer(self._write_engine)

    def open(self) -> None:
        """Connect. The schema must be there (`migrate.upgrade`)."""
        self._reader = self._read_engine.connect()
        self._writer.start()

    def close(self) -> None:
        """Finish the writes that wait, then disconnect."""
        self._writer.stop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._read_engine.dispose()
        self._write_engine.dispose()

    async def read(self, query: Query[T]) -> T:
        """Run a short read (point look-ups, small pages) on one snapshot. Blocks the loop for its microseconds.

        Raises:
            Refused: `database_unavailable`; `scan` and `write` too.
        """
        assert self._reader is not None, "Database.open was not called"
        with _refusals(), self._reader.begin():
            return query(self._reader)

    async def scan(self, query: Query[T]) -> T:
        """Run a read that may take long in a thread, on a connection of its own."""
        return await asyncio.to_thread(self._scan, query)

    def _scan(self, query: Query[T]) -> T:
        with _refusals(), self._read_engine.connect() as connection, connection.begin():
            return query(connection)

    async def write(self, query: Query[T]) -> T:
        """Run `query` in a transaction; its result is returned once it has been committed.

        An exception from `query` undoes only its own changes and is raised here. A caller that is cancelled does not
        undo a write that has begun.

        Raises:
            Refused: `disk_full`: there is no room to commit; `database_unavailable`: the disk can't be written for
                another reason, or another program holds the file. Nothing was changed.
        """
        return await self._writer.submit(query)

    async def find_fault(self) -> str | None:
        """Why nothing can be stored now: a code of `STORAGE_FAULTS`; None if all is well, as far as is known.

        Free when the last write went well; else a small one is tried.
        """
        if self._writer.fault is not None:
            with suppress(Refused):
                await self.write(_rewrite_header)
        return self._writer.fault


def sqlite_engine(path: Path, *, is_read_only: bool = False) -> Engine:
    """A SQLAlchemy engine on the file, with the pragmas every connection to it must have."""
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        poolclass=NullPool,
        hide_parameters=True,  # addresses, goals and hashes have no business in a logged error
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver's own would be DEFERRED and late
        add_unixepoch(connection)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if is_read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    begin = "BEGIN" if is_read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "begin")
    def emit_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def add_unixepoch(connection: sqlite3.Connection) -> None:
    """Give SQLite older than 3.42 the `unixepoch('subsec')` that the engine's library takes for granted.

    The library looks at Python's version (3.12 and later), not at SQLite's: a Python built on Debian 12 has 3.40, where
    the call gives NULL.
    """
    if sqlite3.sqlite_version_info < (3, 42):
        connection.create_function("unixepoch", 1, lambda modifier: time.time_ns() / 1e9)


class _Job:
    """A write that waits, and where its outcome goes."""

    def __init__(self, query: Query[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.query = query
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Writer:
    """The one thread that writes. Its queue is bounded by its callers: each awaits its own job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self.fault: str | None = None
        """Why the last commit failed: a code of `STORAGE_FAULTS`."""

    def start(self) -> None:
        self._connection = self._engine.connect()  # here, where a failure is seen: a dead thread answers nobody
        self._thread = threading.Thread(target=self._work, name="beray-db-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=BUSY_TIMEOUT_MS / 1000 + 5)

    async def submit(self, query: Query[T]) -> T:
        job = _Job(query, asyncio.get_running_loop())
        with self._changed:
            if self._is_stopping:
                raise RuntimeError("the database is closed")
            self._jobs.append(job)
            self._changed.notify()
        result: T = await job.future
        return result

    def _work(self) -> None:
        assert self._connection is not None, "start was called"
        with self._connection as connection:
            while group := self._take():
                self._commit(connection, group)
                loop = group[0].future.get_loop()
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_settle, group)

    def _take(self) -> list[_Job]:
        """Everything that waits, up to GROUP_MOST; empty when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_stopping)
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), GROUP_MOST))]

    def _commit(self, connection: Connection, group: list[_Job]) -> None:
        try:
            with connection.begin():
                for job in group:
                    self._run(connection, job)
            faults = (storage_fault(job.error) for job in group if job.error is not None)
            self.fault = next((fault for fault in faults if fault is not None), None)
        except Exception as error:  # the commit itself failed (disk full, lock): nothing of the group was kept
            refusal = _refusal(error)
            self.fault = storage_fault(refusal)
            for job in group:
                job.error = job.error or refusal

    def _run(self, connection: Connection, job: _Job) -> None:
        try:
            with connection.begin_nested():
                job.result = job.query(connection)
        except Exception as error:  # belongs to the job's caller, who gets it from its future
            job.error = _refusal(error)
            if not connection.connection.in_transaction:  # the failure undid the whole group, not only this job
                raise


def storage_fault(error: BaseException) -> str | None:
    """Which of `STORAGE_FAULTS` is behind `error`; None: it is another's fault, or ours."""
    cause: BaseException | None = error
    while cause is not None:  # undoing a job may itself fail, and hide why
        if isinstance(cause, Refused) and cause.code in STORAGE_FAULTS:
            return cause.code
        if isinstance(cause, sqlite3.OperationalError):
            number = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest says in which call
            if number in _FAULTS:
                return _FAULTS[number]
        cause = cause.__cause__ or cause.__context__
    return None


def _refusal(error: Exception) -> Exception:
    """What the caller gets for `error`: a full or broken disk is not a fault of ours."""
    code = storage_fault(error)
    if code is None or isinstance(error, Refused):
        return error
    refused = Refused(code)
    refused.__cause__ = error
    return refused


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        code = storage_fault(error)
        if code is None or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            raise  # read-only: a read of ours that writes
        raise Refused(code) from error


def _rewrite_header(connection: Connection) -> None:
    """Write one page as it is: as little as shows whether something can be stored."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {version:d}")


def _settle(group: list[_Job]) -> None:
    for job in group:
        job.settle()
