"""What only SQLite has: its durability settings, its version, a disk that is full."""

import asyncio

import pytest
from sqlalchemy import text

from beray.server.clock import system_clock
from beray.server.db.sqlite import SqliteDatabase
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
