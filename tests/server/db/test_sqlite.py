"""What only SQLite has: its durability settings, its version, a disk that is full."""

import asyncio
import sqlite3

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError

from beray.server.clock import system_clock
from beray.server.db import sqlite
from beray.server.db.sqlite import SqliteDatabase, sqlite_engine
from beray.server.errors import Refused
from tests.server.db.test_connect import insert, numbers


@pytest.fixture
async def database(tmp_path):
    database = SqliteDatabase(tmp_path / "beray.db")
    database.open()
    await database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER UNIQUE)")) and None)
    yield database
    database.close()


async def test_commits_are_durable(database):
    """FULL: what a write has returned survives a power cut; group commit pays for it."""
    synchronous = await database.write(lambda connection: connection.execute(text("PRAGMA synchronous")).scalar())
    journal = await database.write(lambda connection: connection.execute(text("PRAGMA journal_mode")).scalar())

    assert (synchronous, journal) == (2, "wal")


async def test_time_in_milliseconds_can_be_asked_of_any_sqlite(database):
    """The engine's library uses it in defaults of its tables, whatever SQLite this Python was built with."""
    query = text("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)")

    for run in (database.read, database.write):
        now = await run(lambda connection: connection.execute(query).scalar_one())
        assert abs(now - system_clock()) < 60_000


async def fill(database: SqliteDatabase) -> None:
    """Let the database grow no further, as on a full disk."""
    await database.write(
        lambda connection: (
            connection.execute(text("CREATE TABLE big (x BLOB)"))
            and connection.execute(text("PRAGMA max_page_count = 1")).scalar()
        )
    )


def insert_big(connection) -> None:
    connection.execute(text("INSERT INTO big VALUES (zeroblob(1000000))"))


async def test_full_disk_is_refused_as_such_and_the_database_goes_on(database):
    await fill(database)

    with pytest.raises(Refused) as refused:
        await database.write(insert_big)
    others = await asyncio.gather(
        database.write(insert(1)), database.write(insert_big), database.write(insert(2)), return_exceptions=True
    )

    assert (refused.value.code, refused.value.status_code) == ("disk_full", 507)
    # Those that came in one group with the full one may be refused with it; what is told must be what is kept.
    assert await database.read(numbers) == [answer for answer in others if isinstance(answer, int)]
    await database.write(lambda connection: connection.execute(text("PRAGMA max_page_count = 100000")).scalar())
    await database.write(insert_big)


async def test_what_keeps_it_from_storing_is_found_until_it_is_mended(database):
    """The fault stays known while nobody writes, and a look alone finds that it is over."""
    assert await database.find_fault() is None
    await fill(database)
    with pytest.raises(Refused):
        await database.write(insert_big)

    assert database._writer.fault == "disk_full"
    assert await database.find_fault() is None, "a page that is there can be rewritten"
    assert await database.read(numbers) == []


@pytest.mark.parametrize(
    "number",
    [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY_DBMOVED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY],
)
@pytest.mark.parametrize("way", ["read", "scan", "write"])
async def test_database_that_cannot_be_used_is_refused_as_such(database, number, way):
    def fail(connection):
        error = sqlite3.OperationalError("as SQLite says it")
        error.sqlite_errorcode = number
        raise OperationalError("SELECT", {}, error) from error

    with pytest.raises(Refused) as refused:
        await getattr(database, way)(fail)

    assert (refused.value.code, refused.value.status_code) == ("database_unavailable", 503)
    assert await database.write(insert(1)) == 1


def test_new_file_that_another_connection_writes_to_is_waited_for(tmp_path, monkeypatch):
    other = sqlite3.connect(tmp_path / "beray.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE other (number INTEGER)")
    waits = []

    def end_the_other(seconds: float) -> None:
        waits.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr(sqlite.time, "sleep", end_the_other)
    engine = sqlite_engine(tmp_path / "beray.db")

    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("SELECT count(*) FROM other").scalar_one() == 0
    assert len(waits) == 1
    other.close()


def test_file_that_is_no_database_is_refused_at_once(tmp_path):
    (tmp_path / "beray.db").write_bytes(b"what is this? " * 100)

    with pytest.raises(DatabaseError, match="not a database"):
        sqlite_engine(tmp_path / "beray.db").connect()
