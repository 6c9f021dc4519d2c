"""How much one task's files may take."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, update

from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.db.tables import task, user
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.task_room import LEAST_BYTES, NOTED_BYTES, TaskRoom
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database

GIB = 1 << 30


@pytest.fixture
async def database(database_url):
    with seeded_database(database_url, 1, 2, 3, status="running", attempt=1) as database:
        yield database


async def put(database: Database, task_id: int, size: int) -> None:
    change = update(task).where(task.c.id == task_id).values(stored_bytes=size)
    await database.write(lambda connection: connection.execute(change).rowcount)


async def give_to_another(database: Database, task_id: int) -> None:
    def give(connection: Connection) -> int:
        connection.execute(insert(user).values(id=2, email="b@example.com", created_at=0))
        return connection.execute(update(task).where(task.c.id == task_id).values(user_id=2)).rowcount

    await database.write(give)


def room_of(database: Database, tmp_path: Path, *, most: int, attempt: int = 1) -> TaskRoom:
    return TaskRoom(
        StoredBytes(database, WorkDirs(tmp_path), most=most), user_id=1, task_id=1, attempt=Attempt(1, attempt)
    )


async def known(database: Database) -> int:
    query = select(task.c.stored_bytes).where(task.c.id == 1)
    return await database.read(lambda connection: connection.execute(query).scalar_one())


@pytest.mark.parametrize(
    ("most", "room"),
    [(0, 5 * GIB), (10 * GIB, 5 * GIB), (4 * GIB, 3 * GIB), (GIB, LEAST_BYTES), (1, LEAST_BYTES)],
)
async def test_a_task_may_take_what_the_others_of_its_user_leave(database, tmp_path, most, room):
    await put(database, 1, 100 * GIB)
    await put(database, 2, GIB)
    await put(database, 3, 100 * GIB)
    await give_to_another(database, 3)

    assert await room_of(database, tmp_path, most=most).within(5 * GIB) == room


async def test_a_task_may_never_take_more_than_its_own_limit(database, tmp_path):
    assert await room_of(database, tmp_path, most=10 * GIB).within(1000) == 1000
    assert await room_of(database, tmp_path, most=1).within(1000) == 1000


async def test_tasks_of_an_older_version_are_measured_first(database, tmp_path):
    await put(database, 1, 0)
    await put(database, 3, 0)
    WorkDirs(tmp_path).create(2, owner=None).write_bytes("a", b"x" * (3 << 20))

    room = await room_of(database, tmp_path, most=GIB).within(5 * GIB)

    assert GIB - (4 << 20) < room <= GIB - (3 << 20)


async def test_what_a_command_has_left_is_kept_if_it_has_changed_enough(database, tmp_path):
    room = room_of(database, tmp_path, most=10 * GIB)

    async def known_after(held: int | None) -> int:
        await room.within(5 * GIB)
        await room.note(held)
        return await known(database)

    await put(database, 1, GIB)
    await put(database, 2, 0)
    await put(database, 3, 0)
    assert await known_after(None) == GIB
    assert await known_after(GIB + NOTED_BYTES - 1) == GIB
    assert await known_after(GIB + NOTED_BYTES) == GIB + NOTED_BYTES
    assert await known_after(0) == 0


async def test_an_upload_beside_a_command_counts_too(database, tmp_path):
    room = room_of(database, tmp_path, most=10 * GIB)
    for task_id in (1, 2, 3):
        await put(database, task_id, 0)
    await room.within(5 * GIB)

    await put(database, 1, GIB)
    await room.note(2 * GIB)

    assert await known(database) == 3 * GIB  # perhaps twice; the run's end measures


async def test_an_attempt_that_was_taken_over_keeps_nothing(database, tmp_path):
    room = room_of(database, tmp_path, most=10 * GIB, attempt=7)
    for task_id in (1, 2, 3):
        await put(database, task_id, 0)
    await room.within(5 * GIB)

    await room.note(2 * GIB)

    assert await known(database) == 0
