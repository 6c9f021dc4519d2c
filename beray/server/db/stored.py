"""SQL of what tasks' files take on the disk: kept with each task, so that a user's sum is one look in an index."""

from typing import Final

from sqlalchemy import Connection, text

UNMEASURED_MOST: Final = 1000  # tasks looked up at once

# Hidden tasks count until their files are gone.
_SUM: Final = text("SELECT coalesce(sum(stored_bytes), 0) FROM task WHERE user_id = :user_id")
_SUM_OF_OTHERS: Final = text(
    "SELECT coalesce(sum(stored_bytes), 0) FROM task"
    " WHERE user_id = (SELECT user_id FROM task WHERE id = :task_id) AND id <> :task_id"
)
_UNMEASURED: Final = text(
    "SELECT id FROM task WHERE user_id = :user_id AND stored_bytes IS NULL ORDER BY id LIMIT :limit"
)
_ADD: Final = text(
    "UPDATE task SET stored_bytes = CASE WHEN stored_bytes + :change > 0 THEN stored_bytes + :change ELSE 0 END"
    " WHERE id = :task_id AND stored_bytes IS NOT NULL"
)
_PUT: Final = text("UPDATE task SET stored_bytes = :stored_bytes WHERE id = :task_id")


def sum_bytes(connection: Connection, user_id: int) -> int:
    """What the user's measured tasks take."""
    return int(connection.execute(_SUM, {"user_id": user_id}).scalar_one())


def sum_bytes_of_others(connection: Connection, task_id: int) -> int:
    """What the other measured tasks of a task's user take."""
    return int(connection.execute(_SUM_OF_OTHERS, {"task_id": task_id}).scalar_one())


def list_unmeasured(connection: Connection, user_id: int) -> list[int]:
    """The user's tasks that nobody has measured yet (made by an older version), the first so many."""
    values = {"user_id": user_id, "limit": UNMEASURED_MOST}
    return list(connection.execute(_UNMEASURED, values).scalars())


def add_bytes(connection: Connection, task_id: int, change: int) -> None:
    """The task's files take so much more, or less; one that was not measured stays so."""
    connection.execute(_ADD, {"task_id": task_id, "change": change})


def put_bytes(connection: Connection, task_id: int, stored_bytes: int) -> None:
    """The task's files have been measured."""
    connection.execute(_PUT, {"task_id": task_id, "stored_bytes": stored_bytes})
