"""What a message of the user does to a task, by the task's state.

While the agent works the message waits for its next turn; a question it answers; an ended task it begins anew, as the
goal of a further run. Each in one transaction, with the events that show it.
"""

import orjson
from sqlalchemy import Connection

from beray.protocol.status import ENDED
from beray.protocol.types import JsonObject
from beray.server.agent.models.choice import ModelChoice
from beray.server.clock import Clock
from beray.server.db import messages as queries
from beray.server.db import tasks as task_queries
from beray.server.db.tasks import TaskRecord
from beray.server.errors import Refused
from beray.server.events.log import EventLog, NewEvent

WAITING_MOST = 20  # messages a task's agent has not read: it reads them all before its next turn
MESSAGES_MOST = 1000  # of one task, answers included: each is kept with its task, up to 100,000 characters
AGAIN_SECONDS = 5  # a turn is rarely shorter


class Conversation:
    """Puts messages where they belong. Its methods run within a transaction that holds the task's row."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    def check(self, connection: Connection, row: TaskRecord, *, question_id: str | None = None) -> None:
        """Raise if the task takes no message now, or none that answers `question_id`.

        Raises:
            Refused: conversation_full, question_closed, task_being_stopped, rules_read_no_messages, too_many_messages.
        """
        if question_id is not None and not _waits_for(row, question_id):
            raise Refused("question_closed", task_id=row.id)
        if queries.count_messages(connection, row.id) >= MESSAGES_MOST:
            raise Refused("conversation_full", task_id=row.id, most=MESSAGES_MOST)
        if row.status in ENDED:
            return
        if row.stop_requested:
            raise Refused("task_being_stopped", task_id=row.id)
        if row.status == "waiting":
            return
        if row.model_kind == "rules":
            raise Refused("rules_read_no_messages", task_id=row.id)
        if queries.count_waiting(connection, row.id) >= WAITING_MOST:
            raise Refused("too_many_messages", task_id=row.id, most=WAITING_MOST, retry_after_seconds=AGAIN_SECONDS)

    def add(self, connection: Connection, row: TaskRecord, content: str) -> None:
        """Keep a message for the agent's next turn."""
        self._insert(connection, row, content, run=row.run)

    def answer(self, connection: Connection, row: TaskRecord, content: str) -> None:
        """Answer the question that the task waits with."""
        question_id = _question_id(row)
        self._insert(connection, row, content, run=row.run, question_id=question_id)
        task_queries.end_question(connection, row.id, self._clock())
        going_on = {"status": "running", "run": row.run, "attempt": row.attempt}
        self._events.insert(connection, row.id, [NewEvent("task.status", _fields(row, going_on))])

    def begin_again(self, connection: Connection, row: TaskRecord, content: str, model: ModelChoice) -> int:
        """Make an ended task queued again, for a model; the number of the run."""
        run = row.run + 1
        self._insert(connection, row, content, run=run)
        task_queries.begin_further_run(connection, row.id, run, self._clock())
        task_queries.update_task(connection, row.id, model=model.name, model_kind=model.kind)
        queued = {"status": "queued", "run": run, "attempt": 0, "model": model.name, "model_kind": model.kind}
        self._events.insert(connection, row.id, [NewEvent("task.status", _fields(row, queued))])
        return run

    def _insert(
        self, connection: Connection, row: TaskRecord, content: str, *, run: int, question_id: str | None = None
    ) -> None:
        queries.insert_message(connection, row.id, run=run, content=content, question_id=question_id, now=self._clock())
        received = {"question_id": question_id, "content": content}
        self._events.insert(connection, row.id, [NewEvent("input.received", received)])


def _waits_for(row: TaskRecord, question_id: str) -> bool:
    return row.status == "waiting" and _question_id(row) == question_id


def _question_id(row: TaskRecord) -> str:
    assert row.question is not None, "a task that waits has a question"
    question_id: str = orjson.loads(row.question)["question_id"]
    return question_id


def _fields(row: TaskRecord, changed: JsonObject) -> JsonObject:
    return {"model": row.model, "model_kind": row.model_kind, "stop_requested": False, **changed}
