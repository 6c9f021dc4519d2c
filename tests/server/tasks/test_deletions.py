"""How tasks go: what can't be removed holds up nothing else, and nothing goes whose files are elsewhere."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import insert, select, update

from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.prices import PriceTable
from beray.server.audit import AuditTrail
from beray.server.db import tasks as queries
from beray.server.db.accounts import close_account
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.tables import event, task
from beray.server.errors import Refused
from beray.server.events.log import EventLog
from beray.server.events.wakeups import Wakeups
from beray.server.tasks import deletions as deletions_module
from beray.server.tasks.control import RunControl
from beray.server.tasks.deletions import FINISHED_AT_ONCE, OTHERS_DELETE_MS, Deletions, DeletionsFailed
from beray.server.tasks.service import NewTask, Tasks
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database
from tests.support.waiting import begun, until

AT = 1_800_000_000_123
TASKS = range(1, 21)
OWNER = UserRow(1, "a@example.com", 0)


class StubbornWorkDirs(WorkDirs):
    """Some can't be removed."""

    stuck: frozenset[int] = frozenset()

    def delete(self, task_id: int) -> None:
        if task_id in self.stuck:
            raise PermissionError(13, f"Permission denied for {task_id}")
        super().delete(task_id)


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    with seeded_database(tmp_path / "beray.db", *TASKS, status="completed", finished_at=1) as database:
        yield database


@pytest.fixture
def work_dirs(tmp_path) -> StubbornWorkDirs:
    work_dirs = StubbornWorkDirs(tmp_path / "tasks")
    for task_id in TASKS:
        work_dirs.create(task_id, owner=None)
    return work_dirs


@pytest.fixture
def tasks(database, work_dirs) -> Tasks:
    tasks = Tasks(
        database=database,
        events=EventLog(database, Wakeups(), lambda: AT),
        work_dirs=work_dirs,
        control=RunControl(),
        clock=lambda: AT,
        models=Models(ModelChoice("beray:rules", "rules")),
        trail=AuditTrail(database, lambda: AT),
        task_uid=lambda task_id: None,
        stored=StoredBytes(database, work_dirs, most=0),
        prices=PriceTable(),
    )
    tasks.engine = AsyncMock(is_running=AsyncMock(return_value=False))
    return tasks


@pytest.fixture
def deletions(tasks) -> Deletions:
    return tasks.deletions


async def rows(database: Database) -> dict[int, int | None]:
    """When each task that is left was hidden."""
    return dict(
        (await database.read(lambda connection: connection.execute(select(task.c.id, task.c.deleted_at)))).all()
    )


def folders(work_dirs: WorkDirs) -> set[int]:
    return {int(path.name) for path in Path(work_dirs.root).iterdir()}


async def hide(database: Database, *task_ids: int, at: int = AT) -> None:
    change = update(task).where(task.c.id.in_(task_ids)).values(deleted_at=at)
    await database.write(lambda connection: connection.execute(change).rowcount)


async def test_purge_goes_on_with_the_others_and_tells_what_stays(database, work_dirs, deletions):
    work_dirs.stuck = frozenset({1, 5})

    with pytest.raises(DeletionsFailed) as failed:
        await deletions.purge(AT)

    assert "18 tasks were deleted, 2 could not be; the first: [Errno 13] Permission denied for 1" in str(failed.value)
    assert await rows(database) == {1: AT, 5: AT}
    assert folders(work_dirs) == {1, 5}
    assert deletions.engine.purge_ended.called


async def test_no_task_is_made_for_an_account_that_is_gone_since_its_login_was_looked_up(database, tasks):
    await database.write(lambda connection: close_account(connection, OWNER, now=AT))

    with pytest.raises(Refused, match="Not logged in"):
        await tasks.create(OWNER, NewTask("g"))

    assert not tasks.engine.submit.called


async def test_next_purge_begins_with_what_the_last_one_left(database, work_dirs, deletions):
    work_dirs.stuck = frozenset({1, 5})
    with pytest.raises(DeletionsFailed):
        await deletions.purge(AT)
    work_dirs.stuck = frozenset()

    assert await deletions.purge(AT) == 0

    assert await rows(database) == {}
    assert folders(work_dirs) == set()


async def test_what_another_process_may_be_deleting_is_left_to_it(database, work_dirs):
    deletions = Deletions(
        database=database, work_dirs=work_dirs, control=RunControl(), clock=lambda: AT, is_alone=False
    )
    deletions.engine = AsyncMock(is_running=AsyncMock(return_value=False))
    await hide(database, 1, at=AT - OTHERS_DELETE_MS)
    await hide(database, 2, at=AT - OTHERS_DELETE_MS + 1)

    await deletions.finish()

    assert set(await rows(database)) == set(TASKS) - {1}


async def test_hidden_tasks_are_finished_some_at_a_time(database, deletions):
    """Each may wait for a run to be over, and asks the engine all the while."""
    asked: list[int] = []
    go = asyncio.Event()

    async def is_running(task_id: int, runs: int) -> bool:
        asked.append(task_id)
        await go.wait()
        return False

    deletions.engine.is_running = is_running
    await hide(database, *TASKS)

    finishing, again = await begun(deletions.finish(), deletions.finish())
    await until(lambda: len(asked) >= FINISHED_AT_ONCE, what="as many as may be at a time")
    assert len(asked) == FINISHED_AT_ONCE

    go.set()
    assert (await finishing, await again) == ([], [])
    assert await rows(database) == {}


async def test_one_that_stays_is_told_and_holds_up_no_other(database, work_dirs, deletions):
    work_dirs.stuck = frozenset(range(1, 1 + FINISHED_AT_ONCE))
    await hide(database, *TASKS)

    failures = await deletions.finish()

    assert len(failures) == FINISHED_AT_ONCE
    assert folders(work_dirs) == set(work_dirs.stuck)


@pytest.mark.parametrize(("is_right", "code"), [(False, "disk_unavailable"), (None, "starting")])
async def test_nothing_is_purged_unless_the_files_are_known_to_be_here(database, work_dirs, deletions, is_right, code):
    deletions.is_folder_right = lambda: is_right
    await hide(database, 1)

    with pytest.raises(Refused) as refused:
        await deletions.purge(AT)
    assert await deletions.finish() == []

    assert refused.value.code == code
    assert await rows(database) == {1: AT, **dict.fromkeys(set(TASKS) - {1})}
    assert folders(work_dirs) == set(TASKS)


async def test_purge_ends_where_the_folder_proves_to_be_wrong(database, deletions):
    looks = iter([True] * 7)
    deletions.is_folder_right = lambda: next(looks, False)

    with pytest.raises(Refused) as refused:
        await deletions.purge(AT)

    assert refused.value.code == "disk_unavailable"
    assert [at for at in (await rows(database)).values() if at is not None] in ([], [AT])


async def test_user_is_refused_where_the_files_are_elsewhere(database, tasks):
    tasks.deletions.is_folder_right = lambda: False

    with pytest.raises(Refused) as refused:
        await tasks.delete(OWNER, 1)

    assert (refused.value.code, refused.value.status_code) == ("disk_unavailable", 503)
    assert await rows(database) == dict.fromkeys(TASKS)


async def test_user_deletes_before_the_first_look_and_the_rest_waits_for_it(database, work_dirs, tasks):
    looks = []

    def look() -> bool | None:
        looks.append(1)
        return True if len(looks) > 5 else None

    tasks.deletions.is_folder_right = look

    await tasks.delete(OWNER, 1)

    assert set(await rows(database)) == folders(work_dirs) == set(TASKS) - {1}


async def test_row_stays_while_it_is_not_known_where_the_files_are(database, work_dirs, tasks, monkeypatch):
    monkeypatch.setattr(deletions_module, "REMOVE_SECONDS", 0.05)
    tasks.deletions.is_folder_right = lambda: None

    with pytest.raises(Refused) as refused:
        await tasks.delete(OWNER, 1)

    assert refused.value.code == "task_being_deleted"
    assert (await rows(database))[1] == AT
    assert 1 in folders(work_dirs)


async def test_long_log_goes_in_pages_so_that_other_writes_get_in_between(database, deletions, monkeypatch):
    monkeypatch.setattr(deletions_module, "EVENTS_PAGE", 10)
    frames = [{"task_id": 1, "seq": seq, "frame": b"x"} for seq in range(1, 26)]
    await database.write(lambda connection: connection.execute(insert(event), frames).rowcount)
    pages: list[int] = []
    delete_events = queries.delete_events

    def note(connection, **values):
        pages.append(delete_events(connection, **values))
        return pages[-1]

    monkeypatch.setattr(queries, "delete_events", note)

    await deletions.start(1, 1)

    assert pages == [10, 10, 5, 0]
    assert 1 not in await rows(database)
    assert await database.read(lambda connection: connection.execute(select(event.c.seq)).all()) == []
