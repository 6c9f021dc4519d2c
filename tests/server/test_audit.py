"""The audit log: it can only be added to, and what is put down is written, or told as lost."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from beray.server import audit
from beray.server.audit import AuditTrail, Caller, current_caller
from beray.server.audit_log import count_old, prune_audit
from beray.server.beside import operator
from beray.server.db import audit as queries
from beray.server.db.audit import AuditFilter, AuditRow
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.errors import Refused
from beray.server.settings import Settings
from tests.support.databases import migrated, seeded_database
from tests.support.waiting import begun, until

DAY_MS = 86_400_000
USER = UserRow(1, "a@example.com", 0)
OTHER = UserRow(2, "b@example.com", 0)


@pytest.fixture
def engine(database_url: URL) -> Iterator[Engine]:
    engine = migrated(database_url).make_engine()
    yield engine
    engine.dispose()


def add(engine: Engine, *rows: AuditRow) -> None:
    with engine.begin() as connection:
        for row in rows:
            queries.insert_row(connection, row)


def actions(engine: Engine, **wanted: Any) -> list[str]:
    with engine.connect() as connection:
        return [row.action for row in queries.list_rows(connection, AuditFilter(**wanted))]


CHANGES = [
    "UPDATE audit SET who = 'somebody else'",
    "DELETE FROM audit",
    "DELETE FROM audit WHERE id = 2",
    "INSERT OR REPLACE INTO audit (id, at, action) VALUES (2, 0, 'forged')",
    "UPDATE OR REPLACE audit SET id = 3 WHERE id = 2",
    "INSERT INTO audit (id, at, action) VALUES (2, 0, 'forged') ON CONFLICT (id) DO UPDATE SET action = 'forged'",
    "TRUNCATE audit",
]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_entries_cannot_be_changed_or_removed(engine, is_pruned):
    """Nor after the one command that may remove old ones."""
    add(engine, AuditRow(0, "login"), AuditRow(DAY_MS, "logout"), AuditRow(DAY_MS, "login"))
    if is_pruned:
        with engine.begin() as connection:
            assert queries.prune(connection, DAY_MS) == 1
    before = actions(engine)

    for change in CHANGES:
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(change))

    assert actions(engine) == before == ["login", "logout", "login"][is_pruned:]


def test_entries_are_found_by_user_action_and_time(engine):
    add(
        engine,
        AuditRow(1, "login", user_id=1, who="a@example.com"),
        AuditRow(2, "login.failed", who="b@example.com"),
        AuditRow(3, "logout", user_id=1, who="a@example.com"),
    )

    assert actions(engine, user="1") == actions(engine, user="a@example.com") == ["login", "logout"]
    assert actions(engine, user="b@example.com") == ["login.failed"]
    assert actions(engine, action="logout") == ["logout"]
    assert actions(engine, since=2) == ["login.failed", "logout"]
    assert actions(engine, limit=2) == ["login.failed", "logout"], "the newest"
    assert actions(engine, user="' OR 1=1 --") == []


def test_pruning_goes_page_by_page_and_says_so_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "PRUNE_PAGE", 2)
    engine = migrated(URL.create("sqlite", database=str(tmp_path / "beray.db"))).make_engine()
    add(engine, *(AuditRow(at, "login") for at in (0, 1, 2, DAY_MS, 3 * DAY_MS)))
    settings = Settings(data_dir=tmp_path)

    found = count_old(settings, days=2, clock=lambda: 3 * DAY_MS)
    pruned = prune_audit(settings, days=2, clock=lambda: 3 * DAY_MS)
    again = prune_audit(settings, days=2, clock=lambda: 3 * DAY_MS)

    assert (found, pruned, again) == (3, 3, 0)
    with engine.connect() as connection:
        rows = queries.list_rows(connection, AuditFilter())
    assert [(row.action, row.who, row.resource) for row in rows] == [
        ("login", None, None),
        ("login", None, None),
        ("admin.audit.pruned", operator(), "3 entries older than 2 days"),
    ]
    engine.dispose()


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    """With task 1 of user 1."""
    with seeded_database(tmp_path / "beray.db", 1, status="running") as database:
        yield database


@contextmanager
def asked_by(user: UserRow) -> Iterator[None]:
    """What a request of the user is answered in."""
    caller = Caller("req_1", lambda: "192.0.2.1")
    caller.user = user
    token = current_caller.set(caller)
    yield
    current_caller.reset(token)


async def entries(database: Database) -> list[tuple[str, int | None, str | None]]:
    rows = await database.scan(lambda connection: queries.list_rows(connection, AuditFilter(limit=10_000)))
    return [(row.action, row.user_id, row.resource) for row in rows]


async def test_what_is_put_down_is_written_with_who_and_from_where(database):
    trail = AuditTrail(database, lambda: 7)
    running = asyncio.create_task(trail.run())
    with asked_by(USER):
        trail.note(trail.row("file.written", task_id=1, resource="a" * 5000))

    await until(lambda: entries(database), what="the entry")
    running.cancel()

    [row] = await database.scan(lambda connection: queries.list_rows(connection, AuditFilter()))
    assert tuple(row) == (1, 7, "file.written", 1, "a@example.com", "192.0.2.1", 1, "a" * 1000, "req_1")


async def test_what_is_put_down_last_is_written_at_the_end(database):
    trail = AuditTrail(database, lambda: 7)
    for _ in range(1200):
        trail.note(trail.row("file.written"))
    (running,) = await begun(trail.run())  # the first group is on its way
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    await trail.close()

    assert len(await entries(database)) == 1200


async def test_entries_wait_for_a_database_that_is_away_and_lost_ones_are_told(database, monkeypatch):
    monkeypatch.setattr(audit, "WAITING_MOST", 3)
    monkeypatch.setattr(audit, "AGAIN_SECONDS", 0.01)
    refused = []

    async def refuse(query: object) -> None:
        refused.append(query)
        raise Refused("database_unavailable")

    trail = AuditTrail(database, lambda: 7)
    with monkeypatch.context() as away:
        away.setattr(database, "write", refuse)
        running = asyncio.create_task(trail.run())
        for number in range(5):
            trail.note(trail.row("file.written", resource=str(number)))
        await until(lambda: len(refused) > 2, what="tries")

    await until(lambda: entries(database), what="the entries")
    running.cancel()

    assert await entries(database) == [
        ("audit.lost", None, "2 entries"),
        ("file.written", None, "2"),
        ("file.written", None, "3"),
        ("file.written", None, "4"),
    ]


async def test_look_at_a_foreign_task_is_told_and_a_guess_is_not(database):
    trail = AuditTrail(database, lambda: 7)
    with asked_by(OTHER):
        for task_id in (1, 2, 0, -1, 2**63, 2**70):
            trail.note_missing(task_id)
    with asked_by(USER):
        trail.note_missing(1)  # its owner, who has just deleted it

    await trail.close()

    assert await entries(database) == [("task.foreign", 2, None)]


async def test_who_tries_all_ids_fills_no_disk(database, monkeypatch):
    monkeypatch.setattr(audit, "FOREIGN_MOST", 3)
    now = [0]
    trail = AuditTrail(database, lambda: now[0])
    with asked_by(OTHER):
        for minute in range(2):
            now[0] = minute * 60_000
            for _ in range(10):
                trail.note_missing(1)

    await trail.close()

    assert await entries(database) == [("task.foreign", 2, None)] * 6
