"""The database: one writer that commits in groups, reads that see whole transactions."""

import asyncio
import sqlite3

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from beray.server.clock import system_clock
from beray.server.db.connect import Database
from beray.server.errors import Refused


@pytest.fixture
async def database(tmp_path):
    database = Database(tmp_path / "beray.db")
    database.open()
    await database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER UNIQUE)")) and None)
    yield database
    database.close()


def insert(number: int):
    def query(connection):
        connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": number})
        return number

    return query


def numbers(connection) -> list[int]:
    return list(connection.execute(text("SELECT x FROM t ORDER BY x")).scalars())


async def test_write_returns_its_result_after_the_commit(database):
    assert await database.write(insert(7)) == 7
    assert await database.read(numbers) == [7]
    assert await database.scan(numbers) == [7]


async def test_many_writes_at_once_are_all_kept(database):
    results = await asyncio.gather(*(database.write(insert(number)) for number in range(600)))

    assert results == list(range(600))
    assert await database.read(numbers) == list(range(600))


async def test_failed_write_undoes_only_itself(database):
    def fail(connection):
        insert(100)(connection)
        raise ValueError("mine")

    results = await asyncio.gather(
        database.write(insert(1)), database.write(fail), database.write(insert(2)), return_exceptions=True
    )

    assert isinstance(results[1], ValueError)
    assert await database.read(numbers) == [1, 2]


async def test_reads_cannot_write(database):
    with pytest.raises(OperationalError, match="readonly"):
        await database.read(insert(1))


async def test_read_sees_one_snapshot(database):
    await database.write(insert(1))
    loop = asyncio.get_running_loop()

    def read_twice(connection):
        first = numbers(connection)
        asyncio.run_coroutine_threadsafe(database.write(insert(2)), loop).result(timeout=10)
        return first, numbers(connection)

    first, second = await database.scan(read_twice)

    assert first == second == [1]
    assert await database.read(numbers) == [1, 2]


async def test_cancelled_caller_leaves_the_others_alone(database):
    waiting = asyncio.create_task(database.write(insert(1)))
    await asyncio.sleep(0)
    waiting.cancel()

    assert await database.write(insert(2)) == 2


async def test_closed_database_refuses_writes_and_has_kept_those_before(tmp_path):
    path = tmp_path / "beray.db"
    database = Database(path)
    database.open()
    await database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")) and None)
    pending = [asyncio.create_task(database.write(insert(number))) for number in range(50)]
    await asyncio.sleep(0)
    await asyncio.to_thread(database.close)

    assert await asyncio.gather(*pending) == list(range(50))
    with pytest.raises(RuntimeError, match="closed"):
        await database.write(insert(99))


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


async def fill(database: Database) -> None:
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


async def test_error_of_a_statement_does_not_show_its_values(database):
    """It is logged; addresses, goals and hashes are none of the log's business."""
    await database.write(insert(424242))

    with pytest.raises(IntegrityError) as error:
        await database.write(insert(424242))

    assert "424242" not in str(error.value)
