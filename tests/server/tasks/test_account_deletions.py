"""How accounts go: with all that was theirs, after a fault too, and nobody else's with them."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import select, text

from beray.server.clock import DAY_MS
from beray.server.db import accounts, usage
from beray.server.db import tasks as task_queries
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.tables import task, user
from beray.server.db.usage import UsedSums
from beray.server.tasks.account_deletions import AccountDeletions
from beray.server.tasks.control import RunControl
from beray.server.tasks.deletions import Deletions
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database

OWNER = UserRow(1, "a@example.com", 0)
OTHERS = 2
TODAY = 20_000
TASKS = (1, 2, 3)


class Clock:
    """Stands still until it is moved."""

    now = TODAY * DAY_MS + 1

    def __call__(self) -> int:
        return self.now


class StuckWorkDirs(WorkDirs):
    """One can't be removed."""

    stuck: int | None = None

    def delete(self, task_id: int) -> None:
        if task_id == self.stuck:
            raise PermissionError(13, "Permission denied")
        super().delete(task_id)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """With another user, whose task is number 9."""
    with seeded_database(tmp_path / "beray.db", *TASKS, status="completed", finished_at=1) as database:
        engine = database.make_engine()
        with engine.begin() as connection:
            connection.execute(user.insert().values(id=OTHERS, email="b@example.com", created_at=0))
            row = connection.execute(select(task).where(task.c.id == 1)).one()._mapping
            connection.execute(task.insert().values({**row, "id": 9, "user_id": OTHERS}))
        engine.dispose()
        yield database


@pytest.fixture
def work_dirs(tmp_path: Path) -> StuckWorkDirs:
    work_dirs = StuckWorkDirs(tmp_path / "tasks")
    for task_id in (*TASKS, 9):
        work_dirs.create(task_id, owner=None)
    return work_dirs


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deletions(database: Database, work_dirs: WorkDirs, clock: Clock) -> Deletions:
    deletions = Deletions(database=database, work_dirs=work_dirs, control=RunControl(), clock=clock, is_alone=True)
    deletions.engine = AsyncMock(is_running=AsyncMock(return_value=False))
    return deletions


@pytest.fixture
def account_deletions(database: Database, deletions: Deletions, clock: Clock) -> AccountDeletions:
    return AccountDeletions(database, deletions, clock)


async def close(database: Database, clock: Clock) -> None:
    await database.write(lambda connection: accounts.close_account(connection, OWNER, now=clock()))


async def use(database: Database, day: int = TODAY) -> None:
    """Count something for the owner."""
    used = UsedSums(requests=1)
    await database.write(lambda connection: usage.add_used(connection, task_id=1, user_id=1, day=day, used=used))


async def left(database: Database) -> tuple[list[int], list[int]]:
    """Ids of users and tasks."""
    query = select(user.c.id).order_by(user.c.id), select(task.c.id).order_by(task.c.id)
    return await database.read(lambda connection: tuple(list(connection.execute(each).scalars()) for each in query))


def folders(work_dirs: WorkDirs) -> set[str]:
    return {path.name for path in work_dirs.root.iterdir()}


async def test_account_goes_with_its_tasks_and_their_files(database, work_dirs, clock, account_deletions):
    await close(database, clock)

    await account_deletions.remove(OWNER.id)

    assert await left(database) == ([OTHERS], [9])
    assert folders(work_dirs) == {"9"}


async def test_what_could_not_be_removed_keeps_the_row_until_it_can(
    database, work_dirs, clock, deletions, account_deletions
):
    work_dirs.stuck = 2
    await close(database, clock)
    await account_deletions.remove(OWNER.id)
    assert await left(database) == ([1, OTHERS], [2, 9])

    work_dirs.stuck = None
    await deletions.finish()
    await account_deletions.finish()

    assert await left(database) == ([OTHERS], [9])
    assert folders(work_dirs) == {"9"}


async def test_what_a_process_left_undone_is_finished_by_the_next(
    database, work_dirs, clock, deletions, account_deletions
):
    """It closed the account and died; the next one's engine is not there yet when it looks first."""
    await close(database, clock)
    engine, deletions.engine = deletions.engine, None
    await deletions.finish()
    await account_deletions.finish()
    assert await left(database) == ([1, OTHERS], [*TASKS, 9])

    deletions.engine = engine
    await deletions.finish()
    await account_deletions.finish()

    assert await left(database) == ([OTHERS], [9])


async def test_what_was_used_today_counts_for_the_server_until_the_day_is_over(
    database, clock, deletions, account_deletions
):
    await use(database, TODAY - 1)
    await use(database)
    await close(database, clock)
    await account_deletions.remove(OWNER.id)

    async def used() -> list[int]:
        days = (TODAY - 1, TODAY)
        return [(await database.read(lambda connection: usage.sum_of_all(connection, day))).requests for day in days]  # noqa: B023 - read at once

    assert await used() == [0, 1]
    await account_deletions.finish()
    assert await left(database) == ([1, OTHERS], [9])

    clock.now += DAY_MS
    await account_deletions.finish()

    assert await left(database) == ([OTHERS], [9])
    assert await used() == [0, 0]


async def test_no_task_is_made_for_an_account_that_has_gone(database, clock):
    await close(database, clock)
    values = {"user_id": 1, "goal": "g", "status": "queued", "created_at": 0, "updated_at": 0, "usage": "{}"}

    assert await database.write(lambda connection: task_queries.insert_task(connection, values)) is None


async def test_task_that_an_older_version_makes_meanwhile_goes_too(
    database, work_dirs, clock, deletions, account_deletions
):
    await use(database)  # the row waits for the day's end, but such a task does not
    await close(database, clock)
    await account_deletions.remove(OWNER.id)
    stray = (
        "INSERT INTO task (id, user_id, goal, status, created_at, updated_at, usage) VALUES (5,1,'','queued',0,0,'')"
    )
    await database.write(lambda connection: connection.execute(text(stray)) and None)

    await account_deletions.finish()
    await deletions.finish()

    assert await left(database) == ([1, OTHERS], [9])
