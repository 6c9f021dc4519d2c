"""Any database: one writer that commits in groups, reads that see whole transactions."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from functools import partial

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from beray.server.db.connect import LookUp, Part, RunAgain
from beray.server.db.notices import Notice, notify
from tests.support.databases import committed_together, migrated
from tests.support.waiting import until


@pytest.fixture
async def database(database_url):
    database = migrated(database_url)
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


async def test_writes_at_once_have_savepoints_only_when_one_of_them_fails(database):
    savepoints = []
    event.listen(database._write_engine, "savepoint", lambda connection, name: savepoints.append(name))

    await asyncio.gather(*(database.write(insert(number)) for number in range(20)))
    assert savepoints == []

    writes = (database.write(insert(number)) for number in range(19, 39))
    failed, *others = await asyncio.gather(*writes, return_exceptions=True)

    assert isinstance(failed, IntegrityError)
    assert others == list(range(20, 39))
    assert await database.read(numbers) == list(range(39))


async def test_reads_cannot_write(database):
    with pytest.raises(DBAPIError, match=r"read-?only"):
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
    """Its write is being made when it goes away."""
    begun, goes_on = threading.Event(), threading.Event()

    def write(connection):
        begun.set()
        goes_on.wait(20)
        return insert(1)(connection)

    gone = asyncio.create_task(database.write(write))
    await until(begun.is_set)
    other = asyncio.create_task(database.write(insert(2)))
    await until(lambda: database._writer._jobs)

    gone.cancel()
    goes_on.set()

    assert await other == 2
    assert gone.cancelled()


@pytest.mark.parametrize("is_patient", [True, False])
async def test_cancelled_write_that_waits_is_not_made(database, is_patient):
    goes_on = threading.Event()
    begun = threading.Event()
    first = asyncio.create_task(database.write(lambda connection: begun.set() or goes_on.wait(20)))
    await until(begun.is_set)
    write = database.patient.write if is_patient else database.write
    waiting = asyncio.create_task(write(insert(1)))
    await until(lambda: database._writer._jobs)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    goes_on.set()
    await first

    assert await database.write(insert(2)) == 2
    assert await database.read(numbers) == [2]


async def test_closed_database_refuses_writes_and_has_kept_those_before(database_url):
    database = migrated(database_url)
    database.open()
    await database.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")) and None)
    begun, goes_on = threading.Event(), threading.Event()
    first = asyncio.create_task(database.write(lambda connection: begun.set() or goes_on.wait(20)))
    await until(begun.is_set)
    pending = [asyncio.create_task(database.write(insert(number))) for number in range(50)]
    await until(lambda: len(database._writer._jobs) == 50)
    closing = asyncio.create_task(asyncio.to_thread(database.close))
    await until(lambda: database._writer._is_stopping)
    goes_on.set()
    await closing

    assert await first
    assert await asyncio.gather(*pending) == list(range(50))
    with pytest.raises(RuntimeError, match="closed"):
        await database.write(insert(99))


async def test_error_of_a_statement_does_not_show_its_values(database):
    """It is logged; addresses, goals and hashes are none of the log's business."""
    await database.write(insert(424242))

    with pytest.raises(IntegrityError) as error:
        await database.write(insert(424242))

    assert "424242" not in str(error.value)


async def test_query_that_lost_a_race_is_run_again(database):
    tries = []

    def query(connection):
        tries.append(len(tries))
        insert(100 + len(tries))(connection)
        if len(tries) < 3:
            raise RunAgain("somebody was faster")
        return len(tries)

    results = await asyncio.gather(database.write(insert(1)), database.write(query), database.write(insert(2)))

    assert results == [1, 3, 2]
    assert await database.read(numbers) == [1, 2, 103]


async def test_race_lost_for_ever_is_given_up(database):
    def query(connection):
        raise RunAgain("always")

    with pytest.raises(RunAgain):
        await database.write(query)
    assert await database.write(insert(1)) == 1


async def test_notices_are_delivered_after_the_commit_and_only_then(database):
    heard = []
    database.deliver = lambda notices: heard.append((list(notices), database))

    def announced(number, *, fails=False):
        def query(connection):
            insert(number)(connection)
            notify(connection, Notice("log", number))
            if fails:
                raise ValueError("undone")

        return query

    results = await asyncio.gather(
        database.write(announced(1)),
        database.write(announced(2, fails=True)),
        database.write(announced(3)),
        return_exceptions=True,
    )

    assert isinstance(results[1], ValueError)
    assert sorted(notice for notices, _ in heard for notice in notices) == [Notice("log", 1), Notice("log", 3)]


# Parts of a batch


class Squares:
    """A batch that stores squares: refuses what is negative, fails with all if there is a 13 among them."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, connection, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        for item in items:
            if item >= 0:
                insert(item * item)(connection)
                notify(connection, Notice("log", item))
        if 13 in items:
            raise ZeroDivisionError
        return [item * item if item >= 0 else ValueError(item) for item in items]


async def test_neighbouring_parts_are_done_by_one_call_and_others_in_their_place(database):
    squares, others = Squares(), Squares()
    part, other = partial(Part, squares), partial(Part, others)

    results = await committed_together(
        database,
        database.write_part(part(1)),
        database.patient.write_part(part(2)),
        database.write(insert(100)),
        database.write_part(part(3)),
        database.write_part(other(4)),
        database.write_part(part(5)),
    )

    assert results == [1, 4, 100, 9, 16, 25]
    assert (squares.calls, others.calls) == ([[1, 2], [3], [5]], [[4]])
    assert await database.read(numbers) == [1, 4, 9, 16, 25, 100]


async def test_part_that_is_refused_leaves_the_others_as_they_are(database):
    squares, heard = Squares(), []
    database.deliver = heard.extend

    writes = [database.write_part(Part(squares, number)) for number in (1, -2, 3)]
    first, refused, last = await committed_together(database, *writes)

    assert (first, last) == (1, 9)
    assert isinstance(refused, ValueError)
    assert squares.calls == [[1, -2, 3]]
    assert [notice.task_id for notice in heard] == [1, 3]


@pytest.mark.parametrize("culprit", [13, 2])
async def test_batch_that_fails_is_run_part_by_part_so_that_one_fails(database, culprit):
    """By itself, or since the database has its 4 already."""
    await database.write(insert(4))
    squares, heard = Squares(), []
    database.deliver = heard.extend

    results = await committed_together(
        database,
        database.write(insert(100)),
        *(database.write_part(Part(squares, number)) for number in (1, culprit, 3)),
        database.write(insert(101)),
    )

    assert [result for result in results if isinstance(result, int)] == [100, 1, 9, 101]
    assert isinstance(results[2], ZeroDivisionError if culprit == 13 else IntegrityError)
    assert squares.calls == [[1, culprit, 3], [1], [culprit], [3]]
    assert sorted(notice.task_id for notice in heard) == [1, 3]
    assert await database.read(numbers) == [1, 4, 9, 100, 101]


async def test_part_that_lost_a_race_is_run_again_by_itself(database):
    calls = []

    def batch(connection, items):
        calls.append(list(items))
        if 2 in items and len(calls) < 5:
            raise RunAgain("somebody was faster")
        return [insert(item)(connection) for item in items]

    results = await committed_together(database, *(database.write_part(Part(batch, number)) for number in (1, 2, 3)))

    assert results == [1, 2, 3]
    assert calls == [[1, 2, 3], [1], [2], [3], [2]]
    assert await database.read(numbers) == [1, 2, 3]


async def test_part_whose_caller_has_gone_is_not_done(database):
    squares = Squares()

    async def leave():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await database.write_part(Part(squares, 2))

    goes_on, has_begun = threading.Event(), threading.Event()
    first = asyncio.create_task(database.write(lambda connection: has_begun.set() or goes_on.wait(20)))
    await until(has_begun.is_set)
    await leave()
    goes_on.set()

    assert await database.write_part(Part(squares, 3)) == 9
    await first
    assert squares.calls == [[3]]


BY_NUMBER = LookUp("SELECT x FROM t WHERE x >= :least ORDER BY x LIMIT 2")


async def test_look_ups_see_what_has_been_committed(database):
    await asyncio.gather(*(database.write(insert(number)) for number in (1, 2, 3)))

    for _ in range(12):  # the driver of PostgreSQL prepares a statement at its sixth
        assert [tuple(row) for row in await database.find_all(BY_NUMBER, least=2)] == [(2,), (3,)]
    assert tuple(await database.find(BY_NUMBER, least=3)) == (3,)
    assert await database.find(BY_NUMBER, least=4) is None
    assert await database.find_all(BY_NUMBER, least=4) == []


async def test_look_up_that_fails_is_raised_and_the_next_works(database):
    with pytest.raises((DBAPIError, sqlite3.Error), match="nowhere"):
        await database.find(LookUp("SELECT 1 FROM nowhere"))

    assert await database.find_all(BY_NUMBER, least=0) == []
    assert await database.read(numbers) == []
