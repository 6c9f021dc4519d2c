"""What admins are shown is found without reading all tasks; and there is always one of them."""

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, event, insert, make_url, text, update

from beray.protocol.status import STATUSES
from beray.server.admin.roles import demote, promote
from beray.server.db import admin, auth
from beray.server.db.admin import (
    EntryFilter,
    Page,
    TaskFilter,
    UserFilter,
    count_all,
    list_entries,
    list_tasks,
    list_users,
)
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.auth import SessionRow, UserRow
from beray.server.db.postgres import postgres_engine
from beray.server.db.tables import task
from beray.server.db.usage import UsedSums, add_used
from beray.server.errors import Refused
from tests.support.databases import migrated
from tests.support.waiting import wait_until

TODAY = 20_000
BEGAN = TODAY * 86_400_000
ENTRY = AuditRow(BEGAN, "admin.promoted")


@pytest.fixture
def engine(database_url: URL) -> Iterator[Engine]:
    """Users 1 to 3; 60 tasks of theirs in turn: 20 of each status in turn, two of them being deleted."""
    engine = migrated(database_url).make_engine()
    with engine.begin() as connection:
        for number in (1, 2, 3):
            email, now = f"user_{number}@example.com", number
            auth.insert_user(connection, email, password_hash=None if number == 3 else "hash", now=now)
        auth.insert_session(connection, 2, SessionRow(b"a", 50, 90))
        auth.insert_session(connection, 2, SessionRow(b"b", 70, 90))
        connection.execute(insert(task), [values(number) for number in range(60)])
        connection.execute(update(task).where(task.c.id.in_((1, 6))).values(deleted_at=5))
        connection.execute(update(task).where(task.c.id == 7).values(held_until=9))
        add_used(connection, task_id=1, user_id=1, day=TODAY, used=UsedSums(requests=2, input_tokens=10, cost_usd=0.5))
        add_used(connection, task_id=4, user_id=1, day=TODAY, used=UsedSums(requests=1, output_tokens=5, unpriced=1))
        add_used(connection, task_id=4, user_id=1, day=TODAY - 1, used=UsedSums(requests=99))
    yield engine
    engine.dispose()


def values(number: int) -> dict[str, Any]:
    status = STATUSES[number % 6]
    ended_at = BEGAN + number - 30 if status in {"completed", "failed", "stopped"} else None
    row = {"goal": "private", "usage": "{}", "created_at": number, "updated_at": number, "stored_bytes": 100}
    return {**row, "user_id": 1 + number % 3, "status": status, "finished_at": ended_at}


def ids(page: Page[Any]) -> list[int]:
    return [row.id for row in page.rows]


def test_totals_are_of_what_is_there_and_of_today(engine):
    with engine.begin() as connection:
        totals = count_all(connection, day=TODAY, since=BEGAN)

    assert totals.users == 3
    assert totals.active == {"queued": 9, "running": 10, "waiting": 10}
    assert totals.ended == 29
    assert totals.ended_today == {"completed": 5, "failed": 5, "stopped": 5}
    assert (totals.queued, totals.oldest_queued_at) == (8, 12), "one is held, one hidden"
    assert totals.stored_bytes == 6000, "what is being deleted takes room still"
    assert totals.database_bytes > 10_000
    assert (totals.used_today.requests, totals.used_today.tokens, totals.used_today.unpriced) == (3, 15, 1)


def test_users_are_listed_with_what_is_theirs(engine):
    with engine.begin() as connection:
        third, second, first = list_users(connection, UserFilter(10), TODAY).rows

    assert (first.user.email, first.tasks, first.active_tasks, first.stored_bytes) == (
        "user_1@example.com",
        19,
        9,
        2000,
    )
    assert (first.used_today.requests, first.used_today.tokens, first.last_login_at) == (3, 15, None)
    assert (second.used_today, second.last_login_at) == (UsedSums(), 70)
    assert (third.tasks, third.active_tasks) == (19, 10)


def test_users_come_in_pages_and_are_found_by_a_part_of_their_address(engine):
    def emails(**wanted: Any) -> tuple[list[str], int | None]:
        page = list_users(connection, UserFilter(**{"limit": 2, **wanted}), TODAY)
        return [seen.user.email for seen in page.rows], page.next_before

    with engine.begin() as connection:
        assert emails() == (["user_3@example.com", "user_2@example.com"], 2)
        assert emails(before=2) == (["user_1@example.com"], None)
        assert emails(search="R_1@Ex") == (["user_1@example.com"], None)
        assert emails(search="%") == ([], None)
        assert emails(is_only_admins=True) == ([], None)
        admin.set_admin(connection, 2, is_admin=True)
        assert emails(is_only_admins=True) == (["user_2@example.com"], None)


def test_tasks_are_those_that_go_on_unless_others_are_asked_for(engine):
    with engine.begin() as connection:
        active = list_tasks(connection, TaskFilter(100))
        waiting = list_tasks(connection, TaskFilter(2, statuses=("waiting",)))
        more = list_tasks(connection, TaskFilter(2, statuses=("waiting",), before=51))
        failed = list_tasks(connection, TaskFilter(3, statuses=("failed", "queued"), user_id=2))

    assert ids(active) == [number for number in range(60, 1, -1) if number % 6 in {1, 2, 3}]
    assert (ids(waiting), waiting.next_before) == ([57, 51], 51)
    assert (ids(more), more.next_before) == ([45, 39], 39)
    assert (ids(failed), failed.next_before) == ([59, 53, 47], 47)
    assert {(row.email, row.status) for row in failed.rows} == {("user_2@example.com", "failed")}
    assert "private" not in str(active)


def test_pages_of_what_no_index_finds_look_at_so_many_rows_and_go_on(engine, monkeypatch):
    """Each is bounded, whatever it finds, and together they find everything once."""
    monkeypatch.setattr(admin, "TASKS_LOOKED_AT", 7)
    monkeypatch.setattr(admin, "ENTRIES_LOOKED_AT", 7)
    with engine.begin() as connection:
        for number in range(20):
            insert_row(connection, AuditRow(number, "login" if number % 5 == 0 else "logout", user_id=number % 2))

        def pages(list_page: Any, wanted: Any, **filters: Any) -> list[list[int]]:
            found, before = [], admin.ID_MOST
            while before is not None:
                page = list_page(connection, wanted(limit=2, before=before, **filters))
                found.append(ids(page))
                before = page.next_before
            return found

        stopped = pages(list_tasks, TaskFilter, statuses=("stopped",))
        of_user = pages(list_tasks, TaskFilter, statuses=("completed",), user_id=1)
        logins = pages(list_entries, EntryFilter, action="login")
        nobodys = pages(list_entries, EntryFilter, user_id=77)
        every = pages(list_entries, EntryFilter)

    assert joined(stopped) == [60, 54, 48, 42, 36, 30, 24, 18, 12]
    assert [len(page) for page in stopped] == [2, 1, 1, 1, 1, 1, 2, 0, 0]
    assert joined(of_user) == [58, 52, 46, 40, 34, 28, 22, 16, 10, 4]
    assert joined(logins) == [16, 11, 6, 1]
    assert nobodys == [[], [], []]
    assert joined(every) == list(range(20, 0, -1))
    assert len(every) == 10, "what has no condition is read as it stands"


def joined(pages: list[list[int]]) -> list[int]:
    return list(itertools.chain(*pages))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_look_reads_every_task(engine):
    """SQLite plans without knowing what is in the tables; a plan that takes the wrong index takes half a second."""
    asked: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda _1, _2, sql, values, _3, _4: asked.append((sql, values)))
    with engine.begin() as connection:
        count_all(connection, day=TODAY, since=BEGAN)
        list_users(connection, UserFilter(50, search="x"), TODAY)
        for wanted in ({}, {"user_id": 1}, {"statuses": ("failed",)}, {"statuses": ("failed",), "user_id": 1}):
            list_tasks(connection, TaskFilter(50, **wanted))
        plans = {sql: plan(connection, sql, values) for sql, values in tuple(asked) if "FROM task" in sql}

    assert len(plans) > 10
    wrong = re.compile(
        r"SCAN task(?! USING COVERING)|ix_task_deleted_at \(deleted_at=|ix_task_held_until", re.MULTILINE
    )
    assert {sql: steps for sql, steps in plans.items() if wrong.search(steps)} == {}


def plan(connection: Connection, sql: str, values: Any) -> str:
    steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
    return "\n".join(step.detail for step in steps)


# Roles


def role(connection: Connection, user_id: int) -> bool:
    found = auth.find_user(connection, f"user_{user_id}@example.com")
    assert found is not None
    return found[0].is_admin


def user(number: int) -> UserRow:
    return UserRow(number, f"user_{number}@example.com", number)


def entries(connection: Connection) -> int:
    return connection.execute(text("SELECT count(*) FROM audit")).scalar_one()


def test_roles_change_once_and_are_told_once(engine):
    with engine.begin() as connection:
        for _ in range(2):
            promote(connection, user(1), ENTRY)
        assert (role(connection, 1), role(connection, 2), entries(connection)) == (True, False, 1)
        promote(connection, user(2), ENTRY)
        for _ in range(2):
            demote(connection, user(1), ENTRY, may_be_last=False)
        assert (role(connection, 1), role(connection, 2), entries(connection)) == (False, True, 3)


def test_the_last_admin_stays_unless_the_operator_says_so(engine):
    with engine.begin() as connection:
        promote(connection, user(1), ENTRY)
        with pytest.raises(Refused, match="only admin"):
            demote(connection, user(1), ENTRY, may_be_last=False)
        assert role(connection, 1)
        demote(connection, user(1), ENTRY, may_be_last=True)
        assert not role(connection, 1)


def test_who_cannot_log_in_cannot_be_an_admin(engine):
    with engine.begin() as connection, pytest.raises(Refused, match="no password"):
        promote(connection, user(3), ENTRY)


def test_two_admins_who_demote_each_other_at_once_leave_one(postgres_url):
    """In two processes: the second waits for the first, and then is the last."""
    migrated(make_url(postgres_url))
    engine = postgres_engine(make_url(postgres_url), pool_size=3)
    with engine.begin() as connection:
        for number in (1, 2):
            auth.insert_user(connection, user(number).email, password_hash="hash", now=number)
            promote(connection, user(number), ENTRY)

    def demote_second() -> None:
        with engine.begin() as connection:
            demote(connection, user(2), ENTRY, may_be_last=False)

    with ThreadPoolExecutor(1) as threads:
        with engine.begin() as connection:
            demote(connection, user(1), ENTRY, may_be_last=False)
            second = threads.submit(demote_second)
            wait_until(lambda: second.done() or waits(engine), what="the second to wait")
        with pytest.raises(Refused, match="only admin"):
            second.result(20)
    engine.dispose()


def waits(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())
