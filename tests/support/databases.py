"""A database of the server's with a user and tasks of theirs in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from beray.server.db import migrate
from beray.server.db.connect import Database, sqlite_engine
from beray.server.db.tables import task, user
from beray.server.tasks.view import NO_USAGE


@contextmanager
def seeded_database(path: Path, *task_ids: int, **values: Any) -> Iterator[Database]:
    """Open, with user 1 and these tasks, which have the `values`."""
    row = {"user_id": 1, "goal": "g", "usage": json.dumps(NO_USAGE), "created_at": 0, "updated_at": 0, **values}
    engine = sqlite_engine(path)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(insert(user).values(id=1, email="a@example.com", created_at=0))
        connection.execute(insert(task), [{"id": task_id, **row} for task_id in task_ids])
    engine.dispose()
    database = Database(path)
    database.open()
    try:
        yield database
    finally:
        database.close()
