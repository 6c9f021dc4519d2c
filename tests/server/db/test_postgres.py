"""What only PostgreSQL has: connections that are lost, a database that goes away, other processes.

The server sits behind a proxy that cuts around a COMMIT. A `Database` is a process: two on one URL share nothing.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from functools import partial

import psycopg
import pytest
from sqlalchemy import make_url, text

from beray.server.db import listener as listener_module
from beray.server.db import postgres as postgres_module
from beray.server.db import writer as writer_module
from beray.server.db.connect import LookUp, Queries
from beray.server.db.notices import EVERYTHING, Notice, notify
from beray.server.db.postgres import CHANNEL, PostgresDatabase
from beray.server.errors import Refused
from beray.server.events.log import EventLog, NewEvent, frame_body, frame_seq
from beray.server.events.wakeups import Wakeups
from tests.support.commit_proxy import CommitProxy, Cut
from tests.support.databases import committed_together, migrated, seed
from tests.support.postgres import PostgresCluster
from tests.support.waiting import begun, until, wait_until

WAITS_FOR_LOCK = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
NUMBERS = LookUp("SELECT count(*) FROM t")
CUTS: tuple[Cut, ...] = ("before", "stranded", "after", "racing")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes a part of one here."""
    monkeypatch.setattr(writer_module, "IMPATIENT_SECONDS", 0.5)
    monkeypatch.setattr(writer_module, "UNKNOWN_SECONDS", 1.0)
    monkeypatch.setattr(writer_module, "RECONNECT_SECONDS", 0.02)
    monkeypatch.setattr(listener_module, "RECONNECT_SECONDS", 0.02)


@pytest.fixture(scope="module")
def template(postgres: PostgresCluster) -> Iterator[str]:
    """A database with the schema and a table `t` that takes any number twice."""
    url = postgres.create_database()
    migrated(make_url(url))
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (x BIGINT)")
    yield url
    postgres.drop_database(url)


@pytest.fixture
def url(postgres: PostgresCluster, template: str) -> Iterator[str]:
    copy = postgres.create_database(template=template)
    yield copy
    postgres.drop_database(copy)


@pytest.fixture
def proxy(postgres: PostgresCluster) -> Iterator[CommitProxy]:
    with CommitProxy(postgres.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(make_url(url))
    await asyncio.to_thread(lambda: None)  # the loop's threads are there before any is counted
    database.open()
    try:
        yield database
    finally:
        await asyncio.to_thread(database.close)


@pytest.fixture
async def database(url: str, proxy: CommitProxy) -> AsyncIterator[PostgresDatabase]:
    """Behind the proxy."""
    async with opened(through(proxy, url)) as database:
        yield database


@pytest.fixture
async def direct(url: str) -> AsyncIterator[PostgresDatabase]:
    """Another process on the same database, past the proxy."""
    async with opened(url) as database:
        yield database


def through(proxy: CommitProxy, url: str) -> str:
    return make_url(url).set(port=proxy.port).render_as_string()


def insert(number: int) -> Callable[..., int]:
    def query(connection):
        connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": number})
        return number

    return query


def announce(number: int) -> Callable[..., int]:
    def query(connection):
        notify(connection, Notice("log", number))
        return insert(number)(connection)

    return query


def numbers(connection) -> list[int]:
    return list(connection.execute(text("SELECT x FROM t ORDER BY x")).scalars())


def stored(url: str) -> list[int]:
    """What the database holds, asked over a connection of its own."""
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]


def execute(url: str, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def once(*cuts: Cut) -> Callable[[], Cut]:
    """These cuts, one per COMMIT, then no more."""
    left = list(cuts)
    return lambda: left.pop(0) if left else "no"


def hear(database: PostgresDatabase) -> list[Notice]:
    """What is delivered from now on."""
    heard: list[Notice] = []
    database.deliver = heard.extend
    return heard


async def test_commits_are_durable_whatever_the_default_is(url):
    """The writer's connection, and those of further engines: the heartbeat's, the migrations', the engine library's."""
    name = make_url(url).database
    execute(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    show = "SHOW synchronous_commit"
    assert execute(url, show) == [("off",)]

    async with opened(url) as database:
        written = await database.write(lambda connection: connection.execute(text(show)).scalar_one())
        engine = database.make_engine()
        with engine.connect() as connection:
            others = connection.execute(text(show)).scalar_one()
        engine.dispose()

    assert (written, others) == ("on", "on")


# Lost connections


@pytest.mark.parametrize("cut", CUTS)
async def test_write_whose_connection_is_cut_at_its_commit_is_done_once(database, url, proxy, cut):
    """Whether the commit went through or not."""
    proxy.cut = once(cut)

    assert await database.write(insert(1)) == 1

    assert stored(url) == [1]
    assert cut in proxy.commits


@pytest.mark.parametrize(("cut", "runs"), [("before", 2), ("stranded", 2), ("after", 1), ("unheard", 1)])
async def test_only_what_was_not_committed_is_run_again(database, url, proxy, cut, runs):
    proxy.cut = once(cut)
    tries = []

    def query(connection):
        tries.append(insert(len(tries) + 1)(connection))

    await database.write(query)

    assert stored(url) == [runs] == [len(tries)]


async def test_stranded_session_does_not_keep_the_others_waiting(database, url, proxy):
    """A session that was cut off holds its locks, and its outcome is open, until somebody ends it."""
    proxy.cut = once("stranded")
    began = time.monotonic()

    results = await asyncio.gather(
        database.write(insert(1)),
        until(lambda: "stranded" in proxy.commits),
        database.patient.write(insert(2)),
        return_exceptions=True,
    )

    assert results[0::2] == [1, 2]
    assert stored(url) == [1, 2]
    assert time.monotonic() - began < 5, "not after idle_in_transaction_session_timeout only"


async def test_commits_cut_over_and_over_are_done_once(database, url, proxy):
    proxy.cut = once("before", "after", "racing", "before", "racing", "after")

    for number in range(6):
        assert await database.write(insert(number)) == number

    assert stored(url) == list(range(6))


@pytest.mark.parametrize("seed", range(3))
async def test_many_writes_over_random_cuts_are_each_there_once(database, url, proxy, seed):
    generator = random.Random(seed)
    proxy.cut = lambda: generator.choice(CUTS) if generator.random() < 0.4 else "no"
    many = range(400)

    async def cut_now_and_then():
        while True:
            await database.patient.read(numbers)
            proxy.cut_all()

    cutting = asyncio.create_task(cut_now_and_then())
    answers = []
    while len(answers) < len(many):  # in batches of all sizes, so that groups of all sizes come about
        batch = many[len(answers) : len(answers) + generator.randrange(1, 40)]
        answers += await asyncio.gather(*(database.patient.write(insert(number)) for number in batch))
    cutting.cancel()
    await asyncio.gather(cutting, return_exceptions=True)

    assert answers == list(many)
    assert stored(url) == list(many)
    assert proxy.cuts > 3


async def test_impatient_writes_over_cuts_are_there_if_they_were_answered_and_not_if_they_were_refused(
    database, url, proxy
):
    generator = random.Random(7)
    proxy.cut = lambda: generator.choice(CUTS) if generator.random() < 0.5 else "no"
    answers = []
    for first in range(0, 200, 10):
        group = (database.write(insert(number)) for number in range(first, first + 10))
        answers += await asyncio.gather(*group, return_exceptions=True)
    refused = [answer for answer in answers if not isinstance(answer, int)]
    proxy.cut = lambda: "no"

    assert all(isinstance(error, Refused) and error.code == "database_unavailable" for error in refused)
    assert stored(url) == [answer for answer in answers if isinstance(answer, int)]


@pytest.fixture
def forgetful(postgres: PostgresCluster, url: str) -> Iterator[PostgresCluster]:
    """What was not committed is not on its disk for seconds, so that a crash forgets it."""
    execute(url, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    postgres.restart()
    yield postgres
    execute(url, "ALTER SYSTEM RESET wal_writer_delay")
    execute(url, "SELECT pg_reload_conf()")


async def strand_and_crash(
    database: PostgresDatabase, proxy: CommitProxy, postgres: PostgresCluster
) -> "asyncio.Task[int]":
    """A write whose COMMIT never arrived, in a database that has crashed since; the proxy is still closed."""
    proxy.cut = once("stranded")
    writing = asyncio.create_task(database.write(insert(2)))
    await asyncio.to_thread(wait_until, lambda: "stranded" in proxy.commits)
    proxy.is_open = False
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)
    return writing


async def test_transaction_id_used_again_after_a_crash_does_not_pass_for_the_commit(
    database, url, proxy, forgetful, monkeypatch
):
    """A crash forgets the ids whose transactions were not on disk: the next ones get them anew, and commit them."""
    monkeypatch.setattr(writer_module, "UNKNOWN_SECONDS", 100)  # a disk that others write to makes the restart slow
    monkeypatch.setattr(writer_module, "IMPATIENT_SECONDS", 100)
    await database.write(insert(1))
    writing = await strand_and_crash(database, proxy, forgetful)
    for number in range(100, 120):
        execute(url, "INSERT INTO t VALUES (%s)", number)
    proxy.show()

    assert await writing == 2
    assert stored(url) == [1, 2, *range(100, 120)]


async def test_transaction_id_unknown_after_a_crash_is_not_a_commit(database, url, proxy, forgetful, monkeypatch):
    """It lies in the future then, and asking for it is an error."""
    monkeypatch.setattr(writer_module, "UNKNOWN_SECONDS", 100)
    await database.patient.write(insert(1))
    writing = await strand_and_crash(database, proxy, forgetful)
    proxy.show()

    assert await asyncio.wait_for(writing, 20) == 2
    assert await asyncio.wait_for(database.write(insert(3)), 20) == 3
    assert stored(url) == [1, 2, 3]


# A database that is away


async def test_impatient_write_is_refused_soon_and_nothing_is_changed(database, url, proxy):
    proxy.hide()
    began = time.monotonic()

    with pytest.raises(Refused) as refused:
        await database.write(insert(1))

    assert (refused.value.code, refused.value.status_code) == ("database_unavailable", 503)
    assert refused.value.retry_after_seconds
    assert time.monotonic() - began < 5
    proxy.show()
    assert await database.patient.write(insert(2)) == 2
    assert stored(url) == [2]


async def test_impatient_writes_are_refused_beside_patient_ones(database, url, proxy):
    """In one group, and behind it in the queue."""
    await database.write(insert(1))
    proxy.hide()
    patient = await begun(*(database.patient.write(insert(number)) for number in (2, 3)))
    impatient = await begun(*(database.write(insert(number)) for number in (100, 101)))
    patient += await begun(database.patient.write(insert(4)))
    impatient += await begun(database.write(insert(102)))

    refused = await asyncio.wait_for(asyncio.gather(*impatient, return_exceptions=True), 5)

    assert [error.code for error in refused] == ["database_unavailable"] * 3
    assert not any(task.done() for task in patient)
    proxy.show()
    assert await asyncio.gather(*patient) == [2, 3, 4]
    assert stored(url) == [1, 2, 3, 4]


async def test_read_is_refused_at_once(database, proxy):
    proxy.hide()
    began = time.monotonic()

    for read in (partial(database.read, numbers), partial(database.scan, numbers), partial(database.find, NUMBERS)):
        with pytest.raises(Refused) as refused:
            await read()
        assert (refused.value.code, refused.value.status_code) == ("database_unavailable", 503)
    assert time.monotonic() - began < 2


async def test_patient_callers_wait_for_a_database_that_was_killed(url, postgres):
    async with opened(url) as database:
        await database.write(insert(1))
        await asyncio.to_thread(postgres.kill)
        waiting = asyncio.gather(
            database.patient.write(insert(2)), database.patient.read(numbers), database.patient.scan(numbers)
        )
        with pytest.raises(Refused):
            await database.write(insert(3))
        assert not waiting.done()

        await asyncio.to_thread(postgres.start)

        written, *read = await asyncio.wait_for(waiting, 20)
        assert written == 2
        assert all(seen in ([1], [1, 2]) for seen in read)
        assert stored(url) == [1, 2]


async def test_connection_that_never_lasts_refuses_the_impatient_too(database, url, proxy):
    """It can be made, but each transaction on it is cut: as behind a pooler whose server is away."""
    proxy.cut = lambda: "before"

    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(database.write(insert(1)), 5)

    assert refused.value.code in {"database_unavailable", "outcome_unknown"}
    proxy.cut = lambda: "no"
    assert await database.write(insert(2)) == 2
    assert stored(url) == [2]


@pytest.mark.parametrize("was_committed", [True, False])
async def test_outcome_that_cannot_be_learnt_is_told_as_unknown(database, url, proxy, was_committed):
    """The commit was cut, and the database did not come back: it may be there or not, and is not tried again."""

    def cut():
        proxy.is_open = False
        return "after" if was_committed else "before"

    proxy.cut = cut

    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(database.write(insert(1)), 5)

    assert (refused.value.code, refused.value.status_code) == ("outcome_unknown", 504)
    proxy.cut = lambda: "no"
    proxy.show()
    assert await database.patient.write(insert(2)) == 2
    assert stored(url) == ([1, 2] if was_committed else [2])


@pytest.mark.parametrize("was_committed", [True, False])
async def test_patient_write_waits_until_its_outcome_is_known(database, url, proxy, was_committed):
    def cut():
        proxy.is_open = False
        proxy.cut = lambda: "no"
        return "after" if was_committed else "before"

    proxy.cut = cut
    patient = asyncio.create_task(database.patient.write(insert(1)))
    await until(lambda: not proxy.is_open)
    with pytest.raises(Refused) as refused:
        await database.write(insert(2))
    assert refused.value.code == "database_unavailable", "it was behind, and not begun"

    assert not patient.done()
    proxy.show()
    assert await patient == 1
    assert stored(url) == [1]


async def test_closing_ends_soon_while_the_database_is_away(url, proxy):
    database = PostgresDatabase(make_url(through(proxy, url)))
    database.open()
    proxy.hide()
    waiting = await begun(*(database.patient.write(insert(number)) for number in range(3)))

    await asyncio.wait_for(asyncio.to_thread(database.close), 5)

    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, RuntimeError) and "closed" in str(error) for error in ended)
    assert stored(url) == []


async def test_closing_finishes_the_writes_that_wait_over_a_cut(url, proxy):
    database = PostgresDatabase(make_url(through(proxy, url)))
    database.open()
    proxy.cut = once("after")
    waiting = await begun(*(database.write(insert(number)) for number in range(300)))

    await asyncio.to_thread(database.close)

    answers = await asyncio.gather(*waiting, return_exceptions=True)
    kept = [answer for answer in answers if isinstance(answer, int)]
    assert stored(url) == kept
    assert len(kept) >= 300 - writer_module.GROUP_MOST


async def test_opening_without_a_database_fails_and_leaves_nothing(url, proxy):
    proxy.is_open = False
    database = PostgresDatabase(make_url(through(proxy, url)))

    with pytest.raises(Refused, match="cannot be reached"):
        database.open()

    database.close()


async def test_write_whose_caller_has_gone_is_not_made_later(database, url, proxy):
    proxy.hide()
    gone = await begun(*(database.patient.write(insert(number)) for number in range(20)))
    stays = asyncio.create_task(database.patient.write(insert(100)))
    with pytest.raises(Refused):
        await database.write(insert(200))
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    proxy.show()

    assert await stays == 100
    assert stored(url) == [100]


# Races and time limits


def swap(first: int, second: int) -> Callable[..., None]:
    """Changes two rows, one after the other, with time for others in between."""

    def query(connection):
        update = text("UPDATE t SET x = x + 1 WHERE x / 1000 = :row")
        connection.execute(update, {"row": first})
        connection.execute(text("SELECT pg_sleep(0.2)"))
        connection.execute(update, {"row": second})

    return query


async def test_deadlock_of_two_processes_is_run_again(database, direct, url):
    execute(url, "INSERT INTO t VALUES (1000), (2000)")

    await asyncio.gather(database.write(swap(1, 2)), direct.write(swap(2, 1)))

    assert stored(url) == [1002, 2002]


async def test_deadlock_undoes_nothing_of_the_others_in_the_group(database, direct, url):
    execute(url, "INSERT INTO t VALUES (1000), (2000)")
    groups = [
        [writer.write(insert(number)), writer.write(swap(*rows)), writer.write(insert(number + 1))]
        for writer, number, rows in ((database, 5000, (1, 2)), (direct, 6000, (2, 1)))
    ]

    await asyncio.gather(*groups[0], *groups[1])

    assert stored(url) == [1002, 2002, 5000, 5001, 6000, 6001]


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
async def test_lock_held_for_too_long_is_a_refusal(database, url, setting):
    execute(url, "INSERT INTO t VALUES (1)")

    def update(connection):
        connection.execute(text(f"SET LOCAL {setting} = '100ms'"))
        connection.execute(text("UPDATE t SET x = 2"))

    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM t FOR UPDATE")
        refused, answer = await asyncio.gather(
            database.write(update), database.write(insert(5)), return_exceptions=True
        )

    assert isinstance(refused, Refused)
    assert (refused.code, answer) == ("database_unavailable", 5)
    assert stored(url) == [1, 5]


async def test_fault_is_over_when_something_can_be_stored_again(database, url):
    """Else a process that was once refused is not ready, gets no requests, and never learns."""

    def give_up(connection):
        connection.execute(text("SET LOCAL statement_timeout = '20ms'"))
        connection.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(Refused):
        await database.write(give_up)
    assert database._writer.fault == "database_unavailable"

    assert await database.find_fault() is None
    assert stored(url) == []


async def test_writer_outlives_what_nobody_foresaw(database, url, monkeypatch):
    """A dead thread would answer nobody ever again."""

    def fail(wanted):
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(database._writer, "_connect", fail)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(database.write(insert(1)), 5)

    assert await database.write(insert(2)) == 2
    assert stored(url) == [2]


async def test_patient_write_outlives_a_lock_held_for_too_long(database, url, monkeypatch):
    """As that of a session which lost its client, until it is ended."""
    monkeypatch.setattr(postgres_module, "SESSION", (*postgres_module.SESSION, "SET lock_timeout = '100ms'"))
    execute(url, "INSERT INTO t VALUES (1)")
    tries = []

    def update(connection):
        tries.append(1)
        connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
        connection.execute(text("UPDATE t SET x = 2"))

    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM t FOR UPDATE")
        waiting = asyncio.create_task(database.patient.write(update))
        await until(lambda: waiting.done() or len(tries) > 1)

    await waiting
    assert stored(url) == [2]


async def test_server_that_came_to_only_read_is_left_for_another_connection(database, url):
    """After a failover the connection may lead to what is a standby now."""
    execute(url, "INSERT INTO t VALUES (1)")
    await database.write(lambda connection: connection.execute(text("SET default_transaction_read_only = on")) and None)

    assert await database.patient.write(insert(2)) == 2

    assert stored(url) == [1, 2]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO secret VALUES (:x)",
        "SELECT CAST(:x AS bigint)",
        "INSERT INTO secret VALUES (NULL, :x)",
    ],
)
@pytest.mark.parametrize("way", ["read", "write"])
async def test_error_does_not_show_values(database, url, statement, way):
    value = "424242@example.com"
    execute(url, "CREATE TABLE secret (x TEXT PRIMARY KEY, y TEXT)")
    execute(url, "INSERT INTO secret VALUES (%s)", value)

    with pytest.raises(Exception, match=r"\(") as caught:
        await getattr(database, way)(lambda connection: connection.execute(text(statement), {"x": value}))

    error: BaseException | None = caught.value
    while error is not None:
        assert "424242" not in str(error)
        assert "424242" not in repr(error)
        error = error.__cause__ or error.__context__


# Reads


async def test_read_has_one_snapshot_and_cannot_write(database, direct):
    await direct.write(insert(1))
    loop = asyncio.get_running_loop()

    def look_twice(connection):
        before = numbers(connection)
        asyncio.run_coroutine_threadsafe(direct.write(insert(2)), loop).result(timeout=10)
        return before, numbers(connection)

    assert await database.read(look_twice) == ([1], [1])
    assert await database.read(numbers) == [1, 2]
    with pytest.raises(Exception, match="read-only"):
        await database.read(insert(3))


async def test_look_up_is_one_statement_without_a_transaction_around_it(database, direct):
    """BEGIN and ROLLBACK would be a round trip each; a read on the same connection has its snapshot again."""
    isolation = "SELECT current_setting('transaction_isolation')"  # as BEGIN would have set it

    for _ in range(10):
        assert await direct.find(LookUp(isolation)) == ("read committed",)
        assert await direct.read(lambda connection: connection.scalar(text(isolation))) == "repeatable read"


def end_connections(url: str) -> int:
    """End all other sessions in this database, as an operator would; how many there were."""
    ended = execute(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
    return len(ended)


async def test_connections_ended_by_the_server_cost_their_callers_nothing(database, url):
    await asyncio.gather(*(database.read(numbers) for _ in range(20)), database.write(insert(0)))

    for number in range(1, 4):
        assert end_connections(url) >= 2
        answers = await asyncio.gather(
            *(database.read(numbers) for _ in range(20)), database.write(insert(number)), database.scan(numbers)
        )
        assert await database.find(NUMBERS) == (number + 1,)
        assert answers[20] == number
    assert stored(url) == [0, 1, 2, 3]


# Notices


async def test_notice_is_heard_in_both_processes_after_the_commit(database, direct, url):
    here, there = hear(database), hear(direct)
    seen = []
    direct.deliver = lambda notices: there.extend(notices) or seen.append(stored(url))

    await database.write(announce(1))
    await until(lambda: there)

    assert here == there == [Notice("log", 1)]
    assert seen == [[1]]


async def test_notice_of_what_was_undone_is_not_heard(database, direct, url):
    here, there = hear(database), hear(direct)

    def fail(connection):
        announce(1)(connection)
        raise ValueError("undone")

    for group in ([fail], [announce(2), fail, announce(3)]):
        await asyncio.gather(*(database.write(query) for query in group), return_exceptions=True)
    await until(lambda: len(there) >= 2)

    assert sorted(here) == sorted(there) == [Notice("log", 2), Notice("log", 3)]


async def test_commit_that_fails_is_not_announced(database, direct, url):
    execute(url, "CREATE TABLE c (x BIGINT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    here, there = hear(database), hear(direct)

    def twice(connection):
        notify(connection, Notice("log", 1))
        connection.execute(text("INSERT INTO c VALUES (1), (1)"))

    with pytest.raises(Exception, match="UniqueViolation"):
        await database.write(twice)
    await database.write(announce(2))
    await until(lambda: there)

    assert here == there == [Notice("log", 2)]


async def test_group_is_one_notification(database, url, proxy):
    """However many writes are in it: a NOTIFY takes a lock on the whole database at its commit."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"LISTEN {CHANNEL}")
        before = len(proxy.commits)
        await asyncio.gather(*(database.write(announce(number)) for number in range(101)))
        commits = len(proxy.commits) - before
        payloads = [notification.payload for notification in other.notifies(timeout=0.2)]

    assert len(payloads) == commits < 10
    assert sorted(word for payload in payloads for word in payload.split()[1:]) == sorted(f"l{n}" for n in range(101))


async def test_notices_too_many_for_one_payload_mean_look_everywhere(database, direct):
    there = hear(direct)

    def announce_many(connection):
        for number in range(10**6, 10**6 + 2000):
            notify(connection, Notice("log", number))
        insert(1)(connection)

    await database.write(announce_many)
    await until(lambda: there)

    assert there == [EVERYTHING]


async def test_own_notices_are_delivered_once(database, direct):
    here, there = hear(database), hear(direct)

    await database.write(announce(1))
    await direct.write(announce(2))
    await until(lambda: len(here) >= 2 and len(there) >= 2)

    assert here == [Notice("log", 1), Notice("log", 2)]
    assert sorted(there) == [Notice("log", 1), Notice("log", 2)]


async def test_commit_found_to_have_gone_through_is_announced_once(database, direct, proxy):
    here, there = hear(database), hear(direct)
    proxy.cut = once("after", "before")

    await database.write(announce(1))
    await database.write(announce(2))
    await until(lambda: len(there) >= 2)

    assert [notice for notice in here if notice != EVERYTHING] == [Notice("log", 1), Notice("log", 2)]
    assert there == [Notice("log", 1), Notice("log", 2)]


async def test_after_a_lost_connection_everybody_looks_everywhere(direct, url):
    heard, reachable = hear(direct), []
    direct.note_reachable = reachable.append

    end_connections(url)
    await until(lambda: EVERYTHING in heard)

    assert reachable == [False, True]
    execute(url, "SELECT pg_notify(%s, 'other l7 x1')", CHANNEL)
    await until(lambda: Notice("log", 7) in heard)
    assert heard == [EVERYTHING, Notice("log", 7), EVERYTHING], "an unknown word means everything, too"


async def test_database_that_is_away_is_told_until_it_is_back(database, proxy):
    reachable: list[bool] = []
    database.note_reachable = reachable.append

    proxy.hide()
    await until(lambda: reachable)
    assert set(reachable) == {False}
    proxy.show()
    await until(lambda: reachable[-1])

    assert reachable.count(True) == 1


async def test_listener_notices_a_connection_that_has_gone_silent(database, proxy, monkeypatch):
    """Nothing is said, nothing is closed: it asks."""
    monkeypatch.setattr(listener_module, "SILENT_SECONDS", 0.05)
    monkeypatch.setitem(postgres_module.CONNECT_ARGS, "options", "-c statement_timeout=0")
    reachable: list[bool] = []
    database.note_reachable = reachable.append

    proxy.hide()
    await until(lambda: False in reachable)


async def test_listener_hears_with_more_files_open_than_select_can_count(url, tmp_path):
    """A server with a thousand streams has a thousand sockets."""
    with contextlib.ExitStack() as stack:
        for number in range(1100):
            stack.enter_context((tmp_path / f"{number % 2}").open("wb"))
        async with opened(url) as database:
            heard = hear(database)
            execute(url, "SELECT pg_notify(%s, 'other l7')", CHANNEL)
            await until(lambda: heard, seconds=5)

    assert heard == [Notice("log", 7)]


# A lock that somebody else holds: an operator's session, a process that stands still


def double(connection) -> None:
    connection.execute(text("UPDATE t SET x = 2 * x WHERE x = 1"))


@contextlib.contextmanager
def locked_row(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT x FROM t WHERE x = 1 FOR UPDATE")
        yield


async def test_locked_row_holds_up_only_those_who_change_it(database, url, monkeypatch):
    monkeypatch.setattr(writer_module, "IMPATIENT_SECONDS", 20)
    await database.write(insert(1))
    with locked_row(url):
        patient = asyncio.create_task(database.patient.write(double))
        for number in range(10, 13):
            await asyncio.wait_for(database.write(insert(number)), 5)
        assert not patient.done()
    await asyncio.wait_for(patient, 20)

    assert stored(url) == [2, 10, 11, 12]


async def test_request_that_meets_a_lock_is_refused_when_its_time_is_up(database, url):
    await database.write(insert(1))
    with locked_row(url), pytest.raises(Refused) as refused:
        await asyncio.wait_for(database.write(double), 20)

    assert refused.value.code == "database_unavailable"
    assert stored(url) == [1]


async def test_writer_ends_though_a_lock_is_in_its_way(url):
    async with opened(url) as database:
        await database.write(insert(1))
    database = PostgresDatabase(make_url(url))
    database.open()
    with locked_row(url):
        writing = asyncio.create_task(database.patient.write(double))
        try:
            await until(lambda: execute(url, WAITS_FOR_LOCK))
        finally:
            await asyncio.wait_for(asyncio.to_thread(database.close), 20)
        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.wait_for(writing, 5)
    assert stored(url) == [1]


class ByHand(Executor):
    """Runs nothing; the test gives the result."""

    def submit(self, fn, /, *args, **kwargs):
        self.future: Future[int] = Future()
        return self.future


async def test_reader_that_is_cancelled_when_its_result_comes_ends_cancelled(monkeypatch):
    """A loop around it would go on for ever, and the process that closes with it."""
    database = PostgresDatabase(make_url("postgresql://nobody@127.0.0.1:9/none"))
    by_hand = ByHand()
    monkeypatch.setattr(database, "_readers", by_hand)
    [reading] = await begun(database.read(lambda connection: 1))

    by_hand.future.set_result(1)
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    database.close()


# Events, which are stored past SQLAlchemy


@pytest.fixture
def make_log(url) -> Callable[[Queries], EventLog]:
    """Tasks 1 to 4 run."""
    engine = postgres_module.postgres_engine(make_url(url), pool_size=1)
    seed(engine, 1, 2, 3, 4, status="running", attempt=1)
    engine.dispose()
    return lambda database: EventLog(database, Wakeups(), lambda: 0)


def said(text_: str) -> NewEvent:
    return NewEvent("text.delta", {"message_id": "m", "delta": text_})


async def read_said(log: EventLog, task_id: int) -> list[str]:
    """What was said, in the order of the numbers, which have no gap."""
    frames = await log.read_all(task_id)
    assert [frame_seq(frame) for frame in frames] == list(range(1, len(frames) + 1))
    return [json.loads(frame_body(frame))["delta"] for frame in frames]


@pytest.mark.parametrize("cut", CUTS)
async def test_events_whose_connection_is_cut_at_their_commit_are_stored_and_shown_once(
    database, url, proxy, make_log, cut
):
    log = make_log(database)
    proxy.cut = once(cut)
    heard = hear(database)

    assert await asyncio.gather(log.append(1, [said("a")]), log.append(1, [said("b")])) == [1, 2]

    shown = [frame for notice in heard if notice != EVERYTHING for frame in notice.frames]
    assert shown == await log.read_all(1)
    assert await read_said(log, 1) == ["a", "b"]


async def test_events_whose_connection_was_ended_are_stored_once(database, url, make_log):
    log = make_log(database)
    for number in range(1, 4):
        assert end_connections(url) >= 1

        assert await log.append(1, [said(str(number))]) == number

    assert await read_said(log, 1) == ["1", "2", "3"]


async def test_events_of_two_processes_over_random_cuts_are_each_there_once_and_in_order(
    database, direct, proxy, make_log
):
    generator = random.Random(11)
    proxy.cut = lambda: generator.choice(CUTS) if generator.random() < 0.3 else "no"
    logs = make_log(database.patient), EventLog(direct.patient, Wakeups(), lambda: 0)

    async def write(log: EventLog, name: str, task_ids: list[int]) -> None:
        for number in range(15):
            await asyncio.gather(*(log.append(task_id, [said(f"{name}{number}")]) for task_id in task_ids))
            if number % 5 == 2:
                proxy.cut_all()

    await asyncio.gather(write(logs[0], "a", [1, 2, 3]), write(logs[1], "b", [3, 2, 1]))

    for task_id in (1, 2, 3):
        texts = await read_said(logs[1], task_id)
        for name in "ab":
            assert [text_ for text_ in texts if text_[0] == name] == [f"{name}{number}" for number in range(15)]


async def test_tasks_are_locked_in_one_order_so_that_processes_do_not_lock_each_other_up(database, url, make_log):
    """Whoever waits for the first holds none of the others yet."""
    log = make_log(database)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM task WHERE id = 1 FOR UPDATE")
        group = committed_together(database, *(log.append(task_id, [said("x")]) for task_id in (3, 2, 1)))
        writing = asyncio.create_task(group)
        await until(lambda: execute(url, WAITS_FOR_LOCK))
        free = execute(url, "SELECT id FROM task WHERE id > 1 ORDER BY id FOR UPDATE SKIP LOCKED")

    assert free == [(2,), (3,), (4,)]
    assert await writing == [1, 1, 1]


async def test_locked_task_holds_up_only_its_own_events(database, url, make_log, monkeypatch):
    monkeypatch.setattr(writer_module, "IMPATIENT_SECONDS", 20)
    monkeypatch.setattr(postgres_module, "_QUICK", text("SET lock_timeout = '100ms'"))
    log, patient = make_log(database), EventLog(database.patient, Wakeups(), lambda: 0)
    end_connections(url)  # the next has the short limit
    await log.append(1, [said("a")])
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM task WHERE id = 1 FOR UPDATE")
        held, *_ = await begun(patient.append(1, [said("b")]), log.append(2, [said("x")]), log.append(3, [said("x")]))
        for seq in range(2, 6):
            assert await asyncio.wait_for(log.append(2, [said("y")]), 5) == seq
        assert not held.done()

    assert await asyncio.wait_for(held, 20) == 2
    assert await read_said(log, 3) == ["x"]
