"""How much one task's files may take."""

import pytest
from sqlalchemy import Connection, insert, select, update

from beray.server.db.connect import Database
from beray.server.db.tables import task, user
from beray.server.work_dirs.task_room import LEAST_BYTES, NOTED_BYTES, TaskRoom
from tests.support.databases import seeded_database

GIB = 1 << 30


@pytest.fixture
async def database(database_url):
    with seeded_database(database_url, 1, 2, 3, status="running") as database:
        yield database


async def put(database: Database, task_id: int, size: int) -> None:
    change = update(task).where(task.c.id == task_id).values(stored_bytes=size)
    await database.write(lambda connection: connection.execute(change).rowcount)


async def give_to_another(database: Database, task_id: int) -> None:
    def give(connection: Connection) -> int:
        connection.execute(insert(user).values(id=2, email="b@example.com", created_at=0))
        return connection.execute(update(task).where(task.c.id == task_id).values(user_id=2)).rowcount

    await database.write(give)


@pytest.mark.parametrize(
    ("most_of_user", "room"),
    [(0, 5 * GIB), (10 * GIB, 5 * GIB), (4 * GIB, 3 * GIB), (GIB, LEAST_BYTES), (1, LEAST_BYTES)],
)
async def test_a_task_may_take_what_the_others_of_its_user_leave(database, most_of_user, room):
    await put(database, 1, 100 * GIB)
    await put(database, 2, GIB)
    await put(database, 3, 100 * GIB)
    await give_to_another(database, 3)

    assert await TaskRoom(database, 1, most_of_user=most_of_user).within(5 * GIB) == room


async def test_what_a_command_has_left_is_kept_if_it_has_changed_enough(database):
    room = TaskRoom(database, 1, most_of_user=0)
    query = select(task.c.stored_bytes).where(task.c.id == 1)

    async def known_after(held: int | None) -> int:
        await room.note(held)
        return await database.read(lambda connection: connection.execute(query).scalar_one())

    await put(database, 1, 7)
    assert await known_after(None) == 7
    assert await known_after(NOTED_BYTES - 1) == 7
    assert await known_after(NOTED_BYTES) == NOTED_BYTES
    assert await known_after(2 * NOTED_BYTES - 1) == NOTED_BYTES
    assert await known_after(0) == 0
