"""SQLite (WAL): the database of one process.

Short reads run inline on a read-only connection, which costs less than a thread hop; look-ups by the driver itself,
since one through SQLAlchemy, in a transaction of its own, costs many times as much (benchmarks: `http`). All writes go
through one thread: group commit makes `synchronous=FULL` cheap, and one writer keeps SQLite from sleeping on its lock.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from beray.server.db.connect import Database, LookUp, Query, Work
from beray.server.db.driver import execute
from beray.server.db.faults import raise_refusal, refusals
from beray.server.db.notices import Notice
from beray.server.db.writer import Store, Writer
from beray.server.errors import Refused

T = TypeVar("T")

READERS_KEPT = 2  # connections of scans; opening one costs more than most scans, and one may cache 2 MB
BUSY_TIMEOUT_MS = 15_000  # the engine's threads write to the same file; a commit takes milliseconds
WAL_RETRY_SECONDS = 0.005  # the other's switch is one small transaction


class SqliteDatabase(Database):
    """The server's database in one file."""

    is_shared = False

    def __init__(self, path: Path) -> None:
        super().__init__(URL.create("sqlite", database=str(path)))
        self.path = path
        self._write_engine = sqlite_engine(path)
        self._read_engine = sqlite_engine(path, is_read_only=True, keep=1 + READERS_KEPT)  # one is the reader's
        self._reader: Connection | None = None
        self._driver: sqlite3.Connection | None = None  # the reader's own
        self._writer = Writer(_SqliteStore(self._write_engine), lambda notices: self.deliver(notices))

    def make_engine(self) -> Engine:
        """See `Database`."""
        return sqlite_engine(self.path)

    def open(self) -> None:
        """See `Database`."""
        self._reader = self._read_engine.connect()
        self._driver = self._reader.connection.driver_connection
        self._writer.start()

    def close(self) -> None:
        """See `Database`."""
        self._writer.stop()
        if self._reader is not None:
            self._reader.close()
            self._reader = self._driver = None
        self._read_engine.dispose()
        self._write_engine.dispose()

    async def read(self, query: Query[T]) -> T:
        """See `Queries.read`. Blocks the loop for its microseconds."""
        assert self._reader is not None, "Database.open was not called"
        with refusals(), self._reader.begin():
            return query(self._reader)

    async def find(self, look_up: LookUp, **values: object) -> Sequence[Any] | None:
        """See `Database`."""
        rows = self._look_up(look_up, values)
        return rows[0] if rows else None

    async def find_all(self, look_up: LookUp, **values: object) -> Sequence[Sequence[Any]]:
        """See `Database`."""
        return self._look_up(look_up, values)

    def _look_up(self, look_up: LookUp, values: dict[str, object]) -> list[Sequence[Any]]:
        """Inline; the driver keeps the statement prepared."""
        assert self._driver is not None, "Database.open was not called"
        try:
            return self._driver.execute(look_up.sql, values).fetchall()
        except sqlite3.Error as error:
            raise_refusal(error)

    async def scan(self, query: Query[T]) -> T:
        """See `Queries.scan`. In a thread, on a connection that is its own meanwhile."""
        return await asyncio.to_thread(self._scan, query)

    def _scan(self, query: Query[T]) -> T:
        with refusals(), self._read_engine.connect() as connection, connection.begin():
            return query(connection)

    async def find_fault(self) -> str | None:
        """See `Database`. Free when the last write went well; else a small one is tried."""
        if self._writer.fault is not None:
            with suppress(Refused):
                await self.write(_rewrite_header)
        return self._writer.fault

    async def submit(self, work: Work[T], *, is_patient: bool) -> T:
        """See `Database`."""
        return await self._writer.submit(work, is_patient=is_patient)


class _SqliteStore(Store):
    """A file doesn't go away, and there is only one writer: nothing is ever lost or in conflict."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def connect(self) -> Connection:
        return self._engine.connect()

    def is_lost(self, error: Exception) -> bool:
        return False

    def is_conflict(self, error: Exception) -> bool:
        return False

    def is_blocked(self, error: Exception) -> bool:
        return False

    def has_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection
        return bool(driver.in_transaction)

    def seal(self, connection: Connection, notices: Sequence[Notice]) -> str | None:
        return None

    def was_committed(self, connection: Connection, mark: str) -> bool | None:
        return False  # never asked: no transaction here has a mark


def _rewrite_header(connection: Connection) -> None:
    """Write one page as it is: as little as shows whether something can be stored."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {version:d}")


def sqlite_engine(path: Path, *, is_read_only: bool = False, keep: int = 0) -> Engine:
    """A SQLAlchemy engine on the file, with the pragmas every connection to it must have.

    Args:
        path: The file.
        is_read_only: Nothing can be written.
        keep: How many connections that were given back stay open.
    """
    kept: dict[str, Any] = {"pool_size": keep, "max_overflow": -1, "pool_use_lifo": True}
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        hide_parameters=True,  # addresses, goals and hashes have no business in a logged error
        poolclass=QueuePool if keep else NullPool,
        **(kept if keep else {}),
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver's own would be DEFERRED and late
        add_unixepoch(connection)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if is_read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    begin = "BEGIN" if is_read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "begin")
    def emit_begin(connection: Connection) -> None:
        execute(connection, begin)

    return engine


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Turn the file to WAL, which it then stays.

    On a new file this goes from a read lock to a write lock, where SQLite refuses at once instead of waiting
    (`busy_timeout` is not asked, since two who do this would wait for each other): who comes second asks again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(WAL_RETRY_SECONDS)
        else:
            return


def add_unixepoch(connection: sqlite3.Connection) -> None:
    """Give SQLite older than 3.42 the `unixepoch('subsec')` that the engine's library takes for granted.

    The library looks at Python's version (3.12 and later), not at SQLite's: a Python built on Debian 12 has 3.40, where
    the call gives NULL.
    """
    if sqlite3.sqlite_version_info < (3, 42):
        connection.create_function("unixepoch", 1, lambda modifier: time.time_ns() / 1e9)
