"""Ids of tasks that folders have and the database has forgotten are not given again."""

import asyncio

import pytest
from sqlalchemy import make_url

from beray.server.db import tasks as queries
from tests.support.databases import migrated

VALUES = {"goal": "g", "usage": "{}", "status": "queued", "created_at": 0, "updated_at": 0, "user_id": 1}


@pytest.fixture
async def database(database_url):
    database = migrated(make_url(database_url))
    database.open()
    await database.write(lambda connection: connection.exec_driver_sql(ACCOUNT) and None)
    yield database
    await asyncio.to_thread(database.close)


ACCOUNT = "INSERT INTO user_account (id, email, created_at) VALUES (1, 'a@example.com', 0)"


async def insert(database) -> int:
    return await database.write(lambda connection: queries.insert_task(connection, VALUES))


async def test_ids_go_on_after_the_number(database):
    assert await database.read(queries.last_id) == 0

    await database.write(lambda connection: queries.number_after(connection, 7))
    assert [await insert(database), await insert(database)] == [8, 9]
    assert await database.read(queries.last_id) == 9

    await database.write(lambda connection: queries.number_after(connection, 70))
    assert await insert(database) == 71
