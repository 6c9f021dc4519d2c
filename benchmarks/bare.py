"""The other side of the database benchmarks: one table, the driver, durable commits, nothing around it.

SQLite: `sqlite3`, WAL, synchronous=FULL. PostgreSQL: `psycopg`, synchronous_commit=on, a row in one round trip.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL

CREATE = "CREATE TABLE IF NOT EXISTS bare (task_id bigint NOT NULL, seq bigint NOT NULL, frame {} NOT NULL)"
FRAME = b'id: 1\nevent: tool.output\ndata: {"v":1,"seq":1,"at":"2026-01-01T00:00:00.000Z","delta":"%s"}\n\n' % (
    b"x" * 120
)
GROUP = 20

Row = tuple[int, int, bytes]


class Bare(Protocol):
    """Stores rows, and knows nothing else."""

    def insert(self, rows: list[Row]) -> None:
        """Insert the rows and commit."""
        ...


class BareSqlite:
    """On a file of its own: the engine beside it shall not hold its lock."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(CREATE.format("blob"))

    def insert(self, rows: list[Row]) -> None:
        """See `Bare`."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO bare VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")


class BarePostgres:
    """On a table of its own."""

    def __init__(self, url: URL) -> None:
        import psycopg

        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._connection.execute("SET synchronous_commit = on")
        self._connection.execute(CREATE.format("bytea"))

    def insert(self, rows: list[Row]) -> None:
        """See `Bare`."""
        statement = "INSERT INTO bare VALUES (%s, %s, %s)"
        if len(rows) == 1:
            self._connection.execute(statement, rows[0])
            return
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(statement, rows)


def open_bare(url: URL) -> Bare:
    """Beside the database at `url`."""
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        return BareSqlite(Path(url.database).with_name("bare.db"))
    return BarePostgres(url)


def postgres_version(url: URL) -> str:
    """As the server says."""
    import psycopg

    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        (shown,) = connection.execute("SHOW server_version").fetchone() or ("unknown",)
    return str(shown).split()[0]


def bare_name(url: URL) -> str:
    """What the driver is called."""
    return "sqlite3" if url.get_backend_name() == "sqlite" else "psycopg"


def insert_ms(bare: Bare) -> float:
    """Milliseconds one row takes to be durable."""
    started = time.perf_counter()
    bare.insert([(1, 1, FRAME)])
    return (time.perf_counter() - started) * 1000


def inserts_per_second(bare: Bare, *, seconds: float, group: int = 1) -> float:
    """Rows per second, `group` of them in each commit."""
    rows: list[Row] = [(1, seq, FRAME) for seq in range(group)]
    return group * calls_per_second(lambda: bare.insert(rows), seconds=seconds)


def calls_per_second(call: Callable[[], object], *, seconds: float) -> float:
    """How often it can be called in a second, one call after the other."""
    started = time.perf_counter()
    count = 0
    while time.perf_counter() < started + seconds:
        call()
        count += 1
    return count / (time.perf_counter() - started)
