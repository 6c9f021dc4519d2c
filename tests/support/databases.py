"""A database of the server's with a user and tasks of theirs in it."""

import asyncio
import functools
import json
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, insert, text

from beray.server.db import migrate
from beray.server.db.connect import Database
from beray.server.db.open import make_database
from beray.server.db.tables import task, user
from beray.server.tasks.view import NO_USAGE
from tests.support.waiting import until

HELD_SECONDS = 20.0


def sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def migrated(url: URL) -> Database:
    """With the schema, not yet open."""
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        make_sqlite(Path(url.database))
        return make_database(url)
    database = make_database(url)
    _upgrade(database)
    return database


def make_sqlite(path: Path) -> None:
    """Make the file of a database with the schema, unless it is there."""
    if not path.exists():
        path.write_bytes(_empty_sqlite())


@functools.cache
def _empty_sqlite() -> bytes:
    """Migrated once: it waits for the disk, which a copy does not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "beray.db"
        _upgrade(make_database(sqlite_url(path)))
        return path.read_bytes()


def _upgrade(database: Database) -> None:
    engine = database.make_engine()
    migrate.upgrade(engine)
    engine.dispose()


def seed(engine: Engine, *task_ids: int, **values: Any) -> None:
    """Make user 1 and these tasks, which have the `values`."""
    row = {"user_id": 1, "goal": "g", "usage": json.dumps(NO_USAGE), "created_at": 0, "updated_at": 0, **values}
    with engine.begin() as connection:
        connection.execute(insert(user).values(id=1, email="a@example.com", created_at=0))
        connection.execute(insert(task), [{"id": task_id, **row} for task_id in task_ids])
        if connection.dialect.name == "postgresql":  # ids given by hand leave its counter behind
            connection.execute(text("SELECT setval('task_id_seq', 1000)"))
            connection.execute(text("SELECT setval('user_account_id_seq', 1000)"))


@contextmanager
def seeded_database(where: Path | URL, *task_ids: int, **values: Any) -> Iterator[Database]:
    """Open, with user 1 and these tasks, which have the `values`."""
    database = migrated(sqlite_url(where) if isinstance(where, Path) else where)
    engine = database.make_engine()
    seed(engine, *task_ids, **values)
    engine.dispose()
    database.open()
    try:
        yield database
    finally:
        database.close()


async def committed_together(database: Database, *works: Coroutine[Any, Any, Any]) -> list[Any]:
    """The outcomes of writes that are committed as one group, in this order: the writer is held up until all wait."""
    goes_on, has_begun = threading.Event(), threading.Event()
    holding = asyncio.create_task(database.write(lambda connection: has_begun.set() or goes_on.wait(HELD_SECONDS)))
    await until(has_begun.is_set)
    writes = [asyncio.create_task(work) for work in works]
    await until(lambda: len(database._writer._jobs) == len(works))
    goes_on.set()
    await holding
    return await asyncio.gather(*writes, return_exceptions=True)
