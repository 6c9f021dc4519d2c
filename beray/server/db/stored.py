"""SQL of what tasks' files take on the disk: kept with each task, so that a user's sum is one look in an index."""

from typing import Final

from sqlalchemy import Connection, text

from beray.server.db.attempts import Attempt

UNMEASURED_MOST: Final = 1000  # tasks looked up at once
FEW: Final = 1000  # tasks, whose sum takes 0.1 ms

# Hidden tasks count until their files are gone.
_SUM: Final = text("SELECT coalesce(sum(stored_bytes), 0) FROM task WHERE user_id = :user_id AND id <> :but")
_SUM_OF_FEW: Final = text(
    "SELECT count(*), count(stored_bytes), coalesce(sum(CASE WHEN id = :but THEN 0 ELSE stored_bytes END), 0)"
    " FROM (SELECT id, stored_bytes FROM task WHERE user_id = :user_id LIMIT :most) AS few"
)
_UNMEASURED: Final = text(
    "SELECT id FROM task WHERE user_id = :user_id AND stored_bytes IS NULL ORDER BY id LIMIT :limit"
)
_ADD: Final = text(
    "UPDATE task SET stored_bytes = CASE WHEN stored_bytes + :change > 0 THEN stored_bytes + :change ELSE 0 END"
    " WHERE id = :task_id AND stored_bytes IS NOT NULL"
)
_GET: Final = text("SELECT stored_bytes FROM task WHERE id = :task_id")
_PUT: Final = text(
    "UPDATE task SET stored_bytes = :size"
    " + CASE WHEN stored_bytes > CAST(:before AS BIGINT) THEN stored_bytes - CAST(:before AS BIGINT) ELSE 0 END"
    " WHERE id = :task_id AND (CAST(:attempt AS BIGINT) IS NULL"
    " OR (run = CAST(:run AS BIGINT) AND attempt = CAST(:attempt AS BIGINT)))"
)


def sum_bytes(connection: Connection, user_id: int, *, but: int) -> int:
    """What the user's measured tasks take, all but one."""
    return int(connection.execute(_SUM, {"user_id": user_id, "but": but}).scalar_one())


def sum_of_few(connection: Connection, user_id: int, *, but: int) -> int | None:
    """What the user's tasks take, all but one; None if they are not few, or one has not been measured yet."""
    values = {"user_id": user_id, "but": but, "most": FEW}
    count, measured, total = connection.execute(_SUM_OF_FEW, values).one()
    return int(total) if measured == count < FEW else None


def list_unmeasured(connection: Connection, user_id: int) -> list[int]:
    """The user's tasks that nobody has measured yet (made by an older version), the first so many."""
    values = {"user_id": user_id, "limit": UNMEASURED_MOST}
    return list(connection.execute(_UNMEASURED, values).scalars())


def add_bytes(connection: Connection, task_id: int, change: int) -> None:
    """The task's files take so much more, or less; one that was not measured stays so."""
    connection.execute(_ADD, {"task_id": task_id, "change": change})


def get_bytes(connection: Connection, task_id: int) -> int | None:
    """What the task's files take; None: not measured yet, or no such task."""
    known: int | None = connection.execute(_GET, {"task_id": task_id}).scalar()
    return known


def put_bytes(
    connection: Connection, task_id: int, size: int, *, before: int | None, attempt: Attempt | None = None
) -> None:
    """The task's files have been measured.

    Args:
        connection: In a transaction.
        task_id: The task.
        size: What they took, in bytes.
        before: What was known when the measuring began. What has been added since may have been missed by it, and
            counts on top: twice at worst, until the next measuring.
        attempt: Only if this is still the task's attempt.
    """
    run, number = (None, None) if attempt is None else attempt
    connection.execute(_PUT, {"task_id": task_id, "size": size, "before": before, "run": run, "attempt": number})
