"""SQL of what users say to their tasks after the goal: further messages, answers, the goals of further runs.

A message is delivered once it is in the checkpoint that the model's next request is made from; it is marked so in the
same transaction, hence neither lost nor said twice. An answer to a question is delivered with the result of the call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

_INSERT = text(
    "INSERT INTO message (task_id, number, run, content, question_id, created_at)"
    " SELECT :task_id, coalesce(max(number), 0) + 1, :run, :content, :question_id, :created_at"
    " FROM message WHERE task_id = :task_id"
)
_WAITING = (
    "FROM message WHERE task_id = :task_id AND delivered_at IS NULL AND question_id IS NULL"  # answers go another way
)
_COUNT = text("SELECT coalesce(max(number), 0) FROM message WHERE task_id = :task_id")
_COUNT_WAITING = text(f"SELECT count(*) {_WAITING}")  # constants
_LIST_WAITING = text(f"SELECT number, content {_WAITING} ORDER BY number")  # constants
_FIRST = text("SELECT number, content FROM message WHERE task_id = :task_id AND run = :run ORDER BY number LIMIT 1")
_ANSWER = text(
    "SELECT number, content FROM message WHERE task_id = :task_id AND run = :run AND question_id = :question_id"
)
_DELIVERED = text(
    "UPDATE message SET delivered_at = :now WHERE task_id = :task_id AND number IN :numbers AND delivered_at IS NULL"
).bindparams(bindparam("numbers", expanding=True))


@dataclass(frozen=True)
class MessageRow:
    """One message; numbers count from 1 within a task."""

    number: int
    content: str


def insert_message(
    connection: Connection, task_id: int, *, run: int, content: str, question_id: str | None, now: int
) -> None:
    """Add a message to a task, whose row the transaction holds: numbers are given one after the other."""
    connection.execute(
        _INSERT,
        {"task_id": task_id, "run": run, "content": content, "question_id": question_id, "created_at": now},
    )


def count_waiting(connection: Connection, task_id: int) -> int:
    """How many messages the model has not been told yet, answers aside."""
    return int(connection.execute(_COUNT_WAITING, {"task_id": task_id}).scalar_one())


def list_waiting(connection: Connection, task_id: int) -> list[MessageRow]:
    """The messages that the model has not been told yet, of whatever run, answers aside."""
    return [MessageRow(*row) for row in connection.execute(_LIST_WAITING, {"task_id": task_id})]


def first_of_run(connection: Connection, task_id: int, run: int) -> MessageRow | None:
    """What a further run was begun with."""
    row = connection.execute(_FIRST, {"task_id": task_id, "run": run}).one_or_none()
    return None if row is None else MessageRow(*row)


def count_messages(connection: Connection, task_id: int) -> int:
    """How many messages the task has had; they are numbered without a gap."""
    return int(connection.execute(_COUNT, {"task_id": task_id}).scalar_one())


def find_answer(connection: Connection, task_id: int, run: int, question_id: str) -> MessageRow | None:
    """The answer to a question, if there is one."""
    values = {"task_id": task_id, "run": run, "question_id": question_id}
    row = connection.execute(_ANSWER, values).one_or_none()
    return None if row is None else MessageRow(*row)


def mark_delivered(connection: Connection, task_id: int, numbers: Sequence[int], now: int) -> None:
    """Note that the model is told these messages."""
    if numbers:
        connection.execute(_DELIVERED, {"task_id": task_id, "numbers": list(numbers), "now": now})
