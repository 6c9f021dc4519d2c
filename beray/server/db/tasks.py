"""SQL of tasks. Functions of a `Connection`; a task is only ever looked up together with its owner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Insert, bindparam, delete, func, insert, select, text, update

from beray.protocol.status import STOPPABLE, TRANSITIONS, Status
from beray.protocol.types import ModelKind
from beray.server.db.attempts import Attempt
from beray.server.db.connect import LookUp, RunAgain
from beray.server.db.logins import OwnRow
from beray.server.db.messages import first_of_run
from beray.server.db.notices import Notice, notify
from beray.server.db.tables import idempotency_key, task, user


class TaskRecord(NamedTuple):
    """A row of `task` with the columns the API shows; JSON is text, times are milliseconds since the epoch."""

    id: int
    user_id: int
    goal: str
    status: Status
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    result: str | None
    error: str | None
    model: str | None
    model_kind: ModelKind | None
    tools: str | None
    usage: str
    question: str | None
    last_seq: int
    run: int
    attempt: int
    stop_requested: bool  # by a look-up on SQLite 0 or 1


OWN_TASK: Final = OwnRow(
    TaskRecord._fields, "task", "task.id = :task_id AND task.user_id = {user_id} AND task.deleted_at IS NULL"
)
"""The user's task; of `TaskRecord`."""

NEWEST: Final = LookUp(
    f"SELECT {', '.join(TaskRecord._fields)} FROM task"  # noqa: S608 - the columns are constants
    " WHERE user_id = :user_id AND id < :before AND deleted_at IS NULL ORDER BY id DESC LIMIT :limit"
)
"""A page of the user's tasks; of `TaskRecord`."""

_GET = select(*(task.c[name] for name in TaskRecord._fields)).where(task.c.deleted_at.is_(None))


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list shows; `before` is an id, exclusive."""

    limit: int | None = None
    before: int | None = None
    statuses: tuple[Status, ...] = ()
    search: str | None = None

    @property
    def is_page(self) -> bool:
        """Whether it takes what comes in order, up to a limit."""
        return self.limit is not None and not self.statuses and not self.search

    def with_one_more(self) -> "TaskFilter":
        """The same, with the task after its page, by whose being there it is seen that there are more."""
        return self if self.limit is None else replace(self, limit=self.limit + 1)


@dataclass(frozen=True)
class RunRecord:
    """What a worker needs of a task it has taken; `goal` is what this run was begun with."""

    id: int
    user_id: int
    goal: str
    status: Status
    run: int
    attempt: int
    interrupts: int
    model: str | None
    asked_model: str | None
    model_kind: ModelKind | None
    tools: str | None
    limits: str | None
    usage: str
    stop_requested: bool

    @property
    def fence(self) -> Attempt:
        """What the attempt that was begun writes as."""
        return Attempt(self.run, self.attempt)


# What each task takes is built once: SQLAlchemy needs longer to build a statement than SQLite to carry it out.


@cache
def _insert(names: tuple[str, ...]) -> Insert:
    """Only for a user whose account is not deleted meanwhile: whoever deletes one hides the tasks that it has then."""
    owner = select(*(bindparam(name, type_=task.c[name].type) for name in names)).select_from(user)
    owner = owner.where(user.c.id == bindparam("user_id"), user.c.deleted_at.is_(None)).with_for_update(read=True)
    return insert(task).from_select(names, owner).returning(task.c.id)


_TAKE = (
    update(task)
    .where(
        task.c.id == bindparam("of_task"),
        task.c.run == bindparam("of_run"),
        task.c.deleted_at.is_(None),
        task.c.status.in_(STOPPABLE),
    )
    .values(
        attempt=task.c.attempt + 1,
        interrupts=text("CASE WHEN status = 'queued' THEN 0 ELSE interrupts + 1 END"),
        status=text("CASE WHEN status = 'waiting' THEN 'waiting' ELSE 'running' END"),
        started_at=text("COALESCE(started_at, :now)"),
        updated_at=bindparam("now"),
    )
    .returning(*(task.c[name] for name in RunRecord.__dataclass_fields__))
)
_SET_USAGE = text("UPDATE task SET usage = :usage WHERE id = :task_id")


def insert_task(connection: Connection, values: Mapping[str, Any]) -> int | None:
    """Add a task; its id, None where its user's account has been deleted."""
    task_id: int | None = connection.execute(_insert(tuple(values)), dict(values)).scalar_one_or_none()
    return task_id


_DELETE_EVENTS = text(
    "DELETE FROM event WHERE task_id = :id"
    " AND seq IN (SELECT seq FROM event WHERE task_id = :id ORDER BY seq LIMIT :limit)"
)
_LAST_ID = {
    "sqlite": text("SELECT max(seq) FROM sqlite_sequence WHERE name = 'task'"),
    "postgresql": text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM task_id_seq"),
}
_NUMBER_AFTER = {
    "sqlite": (
        text("DELETE FROM sqlite_sequence WHERE name = 'task'"),
        text("INSERT INTO sqlite_sequence (name, seq) VALUES ('task', :id)"),
    ),
    "postgresql": (text("SELECT setval('task_id_seq', greatest(:id, (SELECT last_value FROM task_id_seq)))"),),
}


def last_id(connection: Connection) -> int:
    """The highest id a task has ever had here; 0 when there was none."""
    return connection.execute(_LAST_ID[connection.dialect.name]).scalar_one() or 0


def number_after(connection: Connection, task_id: int) -> None:
    """Give new tasks ids above this one, which must not be below `last_id`."""
    for statement in _NUMBER_AFTER[connection.dialect.name]:
        connection.execute(statement, {"id": task_id} if ":id" in statement.text else {})


def get_task(connection: Connection, user_id: int, task_id: int, *, is_to_change: bool = False) -> TaskRecord | None:
    """The user's task, or None: unknown, somebody else's, or being deleted.

    With `is_to_change` nobody else changes it before the transaction ends (SQLite has one writer anyway).
    """
    query = _GET.where(task.c.id == task_id, task.c.user_id == user_id)
    row = connection.execute(query.with_for_update() if is_to_change else query).one_or_none()
    return None if row is None else TaskRecord._make(row)


def list_tasks(connection: Connection, user_id: int, wanted: TaskFilter) -> Sequence[TaskRecord]:
    """The user's tasks, newest first."""
    query = _GET.where(task.c.user_id == user_id).order_by(task.c.id.desc())
    if wanted.before is not None:
        query = query.where(task.c.id < wanted.before)
    if wanted.statuses:
        query = query.where(task.c.status.in_(wanted.statuses))
    if wanted.search:
        query = query.where(task.c.goal.icontains(wanted.search, autoescape=True))
    if wanted.limit is not None:
        query = query.limit(wanted.limit)
    return [TaskRecord._make(row) for row in connection.execute(query)]


def take_run(connection: Connection, task_id: int, run: int, now: int) -> RunRecord | None:
    """Begin an attempt at a run: the next attempt number, status running. None if there is nothing left to run."""
    taken = connection.execute(_TAKE, {"of_task": task_id, "of_run": run, "now": now}).one_or_none()
    return None if taken is None else _with_goal(connection, RunRecord(*taken))


def _with_goal(connection: Connection, record: RunRecord) -> RunRecord:
    first = None if record.run == 1 else first_of_run(connection, record.id, record.run)
    return record if first is None else replace(record, goal=first.content)


def change_status(
    connection: Connection, task_id: int, new: Status, *, only_attempt: Attempt | None = None, **values: Any
) -> bool:
    """Move a task to `new`, with further columns, if the table of transitions allows it.

    With `only_attempt` only if that is the task's attempt.
    """
    allowed = [old for old, following in TRANSITIONS.items() if new in following]
    change = update(task).where(task.c.id == task_id, task.c.status.in_(allowed), task.c.deleted_at.is_(None))
    if only_attempt is not None:
        change = change.where(task.c.run == only_attempt.run, task.c.attempt == only_attempt.number)
    return connection.execute(change.values(status=new, **values)).rowcount == 1


def is_over(connection: Connection, task_id: int, run: int) -> bool:
    """Whether the run has ended, or its task is being deleted, or gone."""
    query = select(task.c.id).where(
        task.c.id == task_id, task.c.run == run, task.c.deleted_at.is_(None), task.c.status.in_(STOPPABLE)
    )
    return connection.execute(query).first() is None


def request_stop(connection: Connection, task_id: int, now: int) -> None:
    """Ask for the end of a task's run, in whatever process it goes on."""
    update_task(connection, task_id, stop_requested=True, updated_at=now)
    notify(connection, Notice("stop", task_id))


def list_to_stop(connection: Connection, task_ids: Sequence[int]) -> Sequence[int]:
    """Those of the tasks whose run is to end: stop asked for, deleted, or gone."""
    going_on = select(task.c.id).where(
        task.c.id.in_(task_ids), task.c.stop_requested.is_(False), task.c.deleted_at.is_(None)
    )
    kept = set(connection.execute(going_on).scalars())
    return [task_id for task_id in task_ids if task_id not in kept]


def begin_further_run(connection: Connection, task_id: int, run: int, now: int) -> bool:
    """Queue an ended task for a further run, as if it had just been made; False if it has not ended."""
    return change_status(
        connection,
        task_id,
        "queued",
        run=run,
        attempt=0,
        interrupts=0,
        result=None,
        error=None,
        question=None,
        started_at=None,
        finished_at=None,
        stop_requested=False,
        updated_at=now,
    )


def ask(connection: Connection, task_id: int, question: str, now: int) -> None:
    """The task waits for the answer to a question (JSON)."""
    change_status(connection, task_id, "waiting", question=question, updated_at=now)


def end_question(connection: Connection, task_id: int, now: int) -> bool:
    """The task goes on working; False if it did not wait any more."""
    change = update(task).where(task.c.id == task_id, task.c.status == "waiting", task.c.deleted_at.is_(None))
    return connection.execute(change.values(status="running", question=None, updated_at=now)).rowcount == 1


def get_goal(connection: Connection, task_id: int) -> str:
    """What the task was made with."""
    goal: str = connection.execute(select(task.c.goal).where(task.c.id == task_id)).scalar_one()
    return goal


def get_question(connection: Connection, task_id: int) -> str | None:
    """The question (JSON) that the task waits for an answer to."""
    asked: str | None = connection.execute(select(task.c.question).where(task.c.id == task_id)).scalar_one_or_none()
    return asked


def update_task(connection: Connection, task_id: int, **values: Any) -> None:
    """Set columns."""
    connection.execute(update(task).where(task.c.id == task_id).values(**values))


def set_usage(connection: Connection, task_id: int, usage: str) -> None:
    """Set what a task has used (JSON)."""
    connection.execute(_SET_USAGE, {"task_id": task_id, "usage": usage})


def get_asked_model(connection: Connection, task_id: int) -> str | None:
    """The model that the task's maker has asked for; None: the server's default."""
    asked: str | None = connection.execute(select(task.c.asked_model).where(task.c.id == task_id)).scalar_one_or_none()
    return asked


def get_held_until(connection: Connection, task_id: int) -> int | None:
    """Until when a task made with `hold` waits for its start; None when it is not held."""
    held: int | None = connection.execute(select(task.c.held_until).where(task.c.id == task_id)).scalar_one_or_none()
    return held


def list_overdue_held(connection: Connection, now: int) -> Sequence[int]:
    """Ids of held tasks whose time is up."""
    query = select(task.c.id).where(task.c.held_until <= now, task.c.deleted_at.is_(None))
    return connection.execute(query).scalars().all()


def get_held(connection: Connection, task_id: int) -> TaskRecord | None:
    """A task that still waits for its start, whoever owns it; nobody else changes it before the transaction ends."""
    query = _GET.where(task.c.id == task_id, task.c.held_until.is_not(None), task.c.status == "queued")
    row = connection.execute(query.with_for_update()).one_or_none()
    return None if row is None else TaskRecord._make(row)


def hide_task(
    connection: Connection, user_id: int, task_id: int, now: int, *, ended_before: int | None = None
) -> tuple[Status, int] | None:
    """Hide a task from the API and have its run stopped; its status and run count, or None if it is not there.

    With `ended_before` only if it ended before that time, and has not been begun again.
    """
    owned = [task.c.id == task_id, task.c.user_id == user_id, task.c.deleted_at.is_(None)]
    if ended_before is not None:
        owned.append(task.c.finished_at < ended_before)
    hidden = connection.execute(
        update(task).where(*owned).values(deleted_at=now, stop_requested=True).returning(task.c.status, task.c.run)
    ).one_or_none()
    if hidden is None:  # perhaps somebody else's, who must not be stopped
        return None
    notify(connection, Notice("stop", task_id))
    return hidden[0], hidden[1]


def list_hidden(connection: Connection, before: int) -> Sequence[tuple[int, int]]:
    """Id and run count of tasks hidden until `before` whose deletion has not been finished."""
    rows = connection.execute(select(task.c.id, task.c.run).where(task.c.deleted_at <= before))
    return [(row[0], row[1]) for row in rows]


def list_ended(connection: Connection, before: int, limit: int) -> Sequence[tuple[int, int]]:
    """Id and owner of tasks that ended before a time, oldest first."""
    query = select(task.c.id, task.c.user_id).where(task.c.finished_at < before, task.c.deleted_at.is_(None))
    rows = connection.execute(query.order_by(task.c.finished_at).limit(limit))
    return [(row[0], row[1]) for row in rows]


def count_ended(connection: Connection, before: int) -> int:
    """How many tasks ended before a time."""
    query = select(func.count()).where(task.c.finished_at < before, task.c.deleted_at.is_(None))
    return connection.execute(query).scalar_one()


def delete_events(connection: Connection, task_id: int, limit: int) -> int:
    """Remove up to `limit` of a task's events, the oldest first; how many."""
    result = connection.execute(_DELETE_EVENTS, {"id": task_id, "limit": limit})
    return result.rowcount


def delete_task(connection: Connection, task_id: int) -> None:
    """Remove the row; events, checkpoints and tool calls go with it."""
    connection.execute(delete(task).where(task.c.id == task_id))
    notify(connection, Notice("log", task_id))  # its watchers look again, and see that it is gone


def count_active(connection: Connection) -> int:
    """Tasks that are queued, running or waiting, of all users; held ones are not counted."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM task WHERE status IN ('queued', 'running', 'waiting')"
                " AND deleted_at IS NULL AND held_until IS NULL"
            )
        ).scalar_one()
    )


def get_answer(connection: Connection, user_id: int, key: str, since: int) -> tuple[bytes, bytes] | None:
    """Body hash and answer stored under an idempotency key since a time."""
    row = connection.execute(
        select(idempotency_key.c.body_hash, idempotency_key.c.answer).where(
            idempotency_key.c.user_id == user_id, idempotency_key.c.key == key, idempotency_key.c.created_at > since
        )
    ).one_or_none()
    return None if row is None else (row[0], row[1])


_PUT_ANSWER = text(
    "INSERT INTO idempotency_key (user_id, key, body_hash, answer, created_at)"
    " VALUES (:user_id, :key, :body_hash, :answer, :created_at) ON CONFLICT (user_id, key) DO NOTHING RETURNING key"
)


def put_answer(connection: Connection, user_id: int, key: str, *, since: int, **values: Any) -> None:
    """Store an answer under an idempotency key, replacing one from `since` or before.

    Raises:
        RunAgain: Another process has stored one since this transaction looked.
    """
    owned = (idempotency_key.c.user_id == user_id, idempotency_key.c.key == key)
    connection.execute(delete(idempotency_key).where(*owned, idempotency_key.c.created_at <= since))
    if connection.execute(_PUT_ANSWER, {"user_id": user_id, "key": key, **values}).first() is None:
        raise RunAgain(f"another request of user {user_id} with the same key was faster")


def purge_answers(connection: Connection, before: int) -> None:
    """Forget answers older than `before`."""
    connection.execute(delete(idempotency_key).where(idempotency_key.c.created_at < before))
