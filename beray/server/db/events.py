"""SQL of the event log: the driver's own statements, a few for however many events, since this path is hot.

To append is to find the tails (locked, where others write too), to number, and to store; nobody comes between.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from beray.server.db.attempts import Attempt
from beray.server.db.connect import LookUp
from beray.server.db.driver import execute, execute_many


class Claim(NamedTuple):
    """Who wants to write to a task: its attempt, or None: not a run of it."""

    task_id: int
    attempt: Attempt | None


Row = tuple[int, int, bytes]
"""Of an event: its task, its number, its frame."""

_SQLITE_TAIL: Final = "SELECT last_seq FROM task WHERE id = ? AND deleted_at IS NULL"
_SQLITE_TAIL_FENCED: Final = f"{_SQLITE_TAIL} AND run = ? AND attempt = ? AND status IN ('running', 'waiting')"
_SQLITE_GROW: Final = "UPDATE task SET last_seq = ? WHERE id = ?"
_SQLITE_INSERT: Final = "INSERT INTO event (task_id, seq, frame) VALUES (?, ?, ?)"
# In the order of the tasks: processes that write to the same ones wait for each other, and don't lock each other up.
_POSTGRES_TAILS: Final = (
    "SELECT claim.number - 1, task.last_seq"
    " FROM unnest(%s::bigint[], %s::integer[], %s::integer[]) WITH ORDINALITY AS claim (task_id, run, attempt, number)"
    " JOIN task ON task.id = claim.task_id"
    " WHERE task.deleted_at IS NULL AND (claim.run IS NULL OR"
    " (task.run = claim.run AND task.attempt = claim.attempt AND task.status IN ('running', 'waiting')))"
    " ORDER BY task.id FOR NO KEY UPDATE OF task"
)
_POSTGRES_STORE: Final = (  # one round trip for them all
    "WITH grown AS (UPDATE task SET last_seq = tail.last_seq"
    " FROM unnest(%s::bigint[], %s::bigint[]) AS tail (task_id, last_seq) WHERE task.id = tail.task_id)"
    " INSERT INTO event (task_id, seq, frame) SELECT * FROM unnest(%s::bigint[], %s::bigint[], %b::bytea[])"
)
_ALL = text("SELECT frame FROM event WHERE task_id = :task_id ORDER BY seq")
_TAIL = text("SELECT frame FROM event WHERE task_id = :task_id ORDER BY seq DESC LIMIT :count")

AFTER: Final = LookUp("SELECT frame FROM event WHERE task_id = :task_id AND seq > :after ORDER BY seq LIMIT :most")
"""The next frames of a task after a `seq`, in order."""

LAST: Final = LookUp("SELECT frame FROM event WHERE task_id = :task_id ORDER BY seq DESC LIMIT 1")
"""The last frame of a task."""

UNTIL: Final = LookUp(
    "SELECT frame FROM event WHERE task_id = :task_id AND seq <= :last_seq ORDER BY seq DESC LIMIT :most"
)
"""A few frames of a task, up to a `seq`, the newest first."""


def find_tails(connection: Connection, claims: Sequence[Claim]) -> dict[Claim, int]:
    """The last number of each claim's task (each claim once), 0 before the first; without those who may not write.

    The tasks stay as they are until the end of the transaction.
    """
    if connection.dialect.name == "postgresql":
        task_ids = [claim.task_id for claim in claims]
        runs = [claim.attempt.run if claim.attempt else None for claim in claims]
        attempts = [claim.attempt.number if claim.attempt else None for claim in claims]
        found = execute(connection, _POSTGRES_TAILS, (_array(task_ids), _array(runs), _array(attempts)))
        return {claims[number]: last_seq for number, last_seq in found}
    looks = {claim: _look(connection, claim) for claim in claims}
    return {claim: row[0] for claim, row in looks.items() if row is not None}


def _look(connection: Connection, claim: Claim) -> tuple[int] | None:
    """On SQLite, where a statement costs a microsecond: no less in a longer one for all."""
    task_id, attempt = claim
    if attempt is None:
        found = execute(connection, _SQLITE_TAIL, (task_id,))
    else:
        found = execute(connection, _SQLITE_TAIL_FENCED, (task_id, *attempt))
    row: tuple[int] | None = found.fetchone()
    return row


def store(connection: Connection, tails: Mapping[int, int], rows: Sequence[Row]) -> None:
    """Store the numbered frames, and the number that is now the last of each task."""
    if connection.dialect.name == "postgresql":
        task_ids, seqs, frames = zip(*rows, strict=True)
        columns = [_array(tails.keys()), _array(tails.values()), _array(task_ids), _array(seqs), list(frames)]
        execute(connection, _POSTGRES_STORE, columns)
        return
    execute_many(connection, _SQLITE_GROW, [(last_seq, task_id) for task_id, last_seq in tails.items()])
    execute_many(connection, _SQLITE_INSERT, rows)


def _array(numbers: Iterable[int | None]) -> str:
    """As PostgreSQL writes an array: the driver takes several times as long for a list."""
    return "{" + ",".join(["NULL" if number is None else str(number) for number in numbers]) + "}"


def read_all(connection: Connection, task_id: int) -> list[bytes]:
    """Every frame of the task, in order."""
    return [row[0] for row in connection.execute(_ALL, {"task_id": task_id})]


def read_tail(connection: Connection, task_id: int, count: int) -> list[bytes]:
    """The last `count` frames, in order."""
    rows = connection.execute(_TAIL, {"task_id": task_id, "count": count})
    return [row[0] for row in rows][::-1]
