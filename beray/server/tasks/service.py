"""What users may do with their tasks: the rules, and who owns what."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection

from beray.protocol.status import ENDED, Status
from beray.protocol.types import ErrorItem, JsonObject, StopAnswer
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.tools.catalogue import ToolCatalogue
from beray.server.audit import AuditTrail
from beray.server.clock import Clock
from beray.server.db import tasks as queries
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.events import UNTIL
from beray.server.db.stored import add_bytes
from beray.server.db.tables import ID_MOST
from beray.server.db.tasks import TaskFilter, TaskRecord
from beray.server.db.webhooks import ensure_webhook
from beray.server.engine.base import Engine
from beray.server.errors import STORAGE_FAULTS, Refused, shown
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import wait_changed
from beray.server.messages import text
from beray.server.tasks.control import RunControl
from beray.server.tasks.conversation import Conversation
from beray.server.tasks.deletions import Deletions
from beray.server.tasks.view import NO_USAGE, task_body
from beray.server.webhooks.reach import Reach
from beray.server.webhooks.secrets import new_salt
from beray.server.webhooks.service import check_url
from beray.server.work_dirs.outputs import Outputs
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs

FEW_EVENTS = 64  # of a task, read without a thread of their own
PAGE_MOST = 128  # tasks listed without a thread of their own, if they need not be looked for
TASK_BYTES = 4096  # a task counts as this and its goal until its folder is measured; its rows take 1 to 3 KB
GOAL_MOST = 100_000  # characters; a longer goal is 422
HOLD_MS = 3_600_000  # a task made with "hold" and never started ends after an hour (WIRE.md)
ANSWER_KEPT_MS = 24 * 3_600_000  # how long an Idempotency-Key gives the first answer again (WIRE.md)
STOP_ANSWER_SECONDS = 2.0  # stop answers within this, with the status as it then is (WIRE.md)
DELETE_ANSWER_SECONDS = 4.5  # delete answers within 5 s (WIRE.md)


@dataclass(frozen=True)
class NewTask:
    """What a client asks for; `limits` as in `RunLimits`, each at most the operator's."""

    goal: str
    tools: tuple[str, ...] | None = None
    model: str | None = None
    limits: JsonObject | None = None
    is_held: bool = False
    webhook_url: str | None = None

    def digest(self) -> bytes:
        """By which the same request is known again; what names no webhook, by versions before those too."""
        asked = asdict(self)
        asked["limits"] = self.limits and dict(sorted(self.limits.items()))
        if self.webhook_url is None:
            del asked["webhook_url"]
        return hashlib.sha256(orjson.dumps(asked)).digest()


@dataclass(frozen=True)
class _Asked:
    """A request that is done once, however often it is sent with its key."""

    user: UserRow
    key: str | None
    body_hash: bytes


class Tasks:
    """The tasks of all users, each seen only by its owner."""

    def __init__(
        self,
        *,
        database: Database,
        events: EventLog,
        work_dirs: WorkDirs,
        control: RunControl,
        clock: Clock,
        models: Models,
        trail: AuditTrail,
        task_uid: Callable[[int], int | None],
        stored: StoredBytes,
        prices: PriceTable,
        catalogue: ToolCatalogue = ToolCatalogue(),  # noqa: B008 - frozen: the tools built in
        reach: Reach = Reach(),  # noqa: B008 - frozen: the public internet
    ) -> None:
        self._database = database
        self._events = events
        self._work_dirs = work_dirs
        self._control = control
        self._clock = clock
        self._models = models
        self._trail = trail
        self._task_uid = task_uid
        self._stored = stored
        self._prices = prices
        self._catalogue = catalogue
        self._reach = reach
        self._conversation = Conversation(events, clock)
        self.deletions = Deletions(
            database=database, work_dirs=work_dirs, control=control, clock=clock, is_alone=not database.is_shared
        )

    @property
    def engine(self) -> Engine | None:
        """Set by `create_app` once the engine works; until then nothing can be submitted."""
        return self.deletions.engine

    @engine.setter
    def engine(self, engine: Engine | None) -> None:
        self.deletions.engine = engine

    async def create(self, user: UserRow, new: NewTask, *, key: str | None = None) -> bytes:
        """Make a task and queue it, in one transaction.

        Args:
            user: Its owner.
            new: What is asked for.
            key: Idempotency-Key: the same key and request within 24 h give the first answer again.

        Returns:
            The task's JSON bytes.

        Raises:
            Refused: goal_empty, goal_too_long, unknown_tools, unknown_model, cost_limit_unknown, webhook_url_invalid,
                idempotency_mismatch, storage_full, starting.
        """
        await self._check(new)
        engine = self._require_engine()
        asked = _Asked(user, key, new.digest())
        entry = self._trail.row("task.created", user=user)
        full = await self._fullness(user)

        def insert(connection: Connection) -> bytes:
            if full is not None:
                raise full
            return self._insert(connection, engine, user, new, entry)

        return await self._database.write(lambda connection: self._once(connection, asked, insert))

    def _once(self, connection: Connection, asked: "_Asked", do: Callable[[Connection], bytes]) -> bytes:
        """What `do` answers, or has answered to the same request with the same key before."""
        if asked.key is None:
            return do(connection)
        now = self._clock()
        stored = queries.get_answer(connection, asked.user.id, asked.key, now - ANSWER_KEPT_MS)
        if stored is not None and stored[0] != asked.body_hash:
            raise Refused("idempotency_mismatch")
        if stored is not None:
            return stored[1]
        answer = do(connection)
        kept = {"body_hash": asked.body_hash, "answer": answer, "created_at": now}
        queries.put_answer(connection, asked.user.id, asked.key, since=now - ANSWER_KEPT_MS, **kept)
        return answer

    async def send_message(
        self, user: UserRow, task_id: int, content: str, *, question_id: str | None = None, key: str | None = None
    ) -> bytes:
        """Say something to a task: to its agent at work, as the answer to its question, or to begin a further run.

        Args:
            user: Its owner.
            task_id: The task.
            content: The message.
            question_id: It answers this question, and is nothing else if that is no longer open.
            key: Idempotency-Key, as for `create`.

        Returns:
            The task's JSON bytes.

        Raises:
            Refused: message_empty, message_too_long, task_not_found, task_being_stopped, rules_read_no_messages,
                question_closed, too_many_messages, conversation_full, idempotency_mismatch, storage_full, starting.
        """
        if not content.strip():
            raise _wrong_field("content", "message_empty")
        if len(content) > GOAL_MOST:
            raise _wrong_field("content", "message_too_long", length=len(content), most=GOAL_MOST)
        said = ["message", str(task_id), content, *([] if question_id is None else [question_id])]
        asked = _Asked(user, key, hashlib.sha256(orjson.dumps(said)).digest())
        entry = self._trail.row("task.message", user=user, task_id=task_id)
        full = await self._fullness(user)

        def put(connection: Connection) -> bytes:
            row = self._get_to_change(connection, user, task_id)
            self._conversation.check(connection, row, question_id=question_id)
            if row.status in ENDED:
                self._begin_again(connection, row, content, full)
            elif row.status == "waiting":
                self._conversation.answer(connection, row, content)
            else:
                self._conversation.add(connection, row, content)
            add_bytes(connection, row.id, len(content.encode()))
            insert_row(connection, entry)
            return task_body(self._get(connection, user, task_id))

        return await self._database.write(lambda connection: self._once(connection, asked, put))

    def _begin_again(self, connection: Connection, row: TaskRecord, content: str, full: Refused | None) -> None:
        engine = self._require_engine()
        if full is not None:
            raise full
        model = self._model_again(row, queries.get_asked_model(connection, row.id))
        run = self._conversation.begin_again(connection, row, content, model)
        engine.submit(connection, task_id=row.id, run=run, user_id=row.user_id)

    def _model_again(self, row: TaskRecord, asked: str | None) -> ModelChoice:
        """The model of a further run: the task's own again, if another had taken over; the default, if that is gone."""
        is_fallback = any(choice.name == row.model for choice in self._models.fallback)
        name = asked or (None if is_fallback else row.model)
        return self._models.find(name) or self._models.default

    def _insert(self, connection: Connection, engine: Engine, user: UserRow, new: NewTask, entry: AuditRow) -> bytes:
        now = self._clock()
        model = self._model_of(new)
        task_id = queries.insert_task(
            connection,
            {
                "user_id": user.id,
                "goal": new.goal,
                "status": "queued",
                "created_at": now,
                "updated_at": now,
                "model": model.name,
                "model_kind": model.kind,
                "asked_model": new.model,
                "tools": None if new.tools is None else orjson.dumps(new.tools).decode(),
                "limits": None if new.limits is None else orjson.dumps(new.limits).decode(),
                "usage": orjson.dumps(NO_USAGE).decode(),
                "held_until": now + HOLD_MS if new.is_held else None,
                "stored_bytes": TASK_BYTES + len(new.goal.encode()),
                "webhook_url": new.webhook_url,
            },
        )
        if task_id is None:  # the account has been deleted since its token was looked up
            raise Refused("not_authenticated")
        if new.webhook_url is not None:  # something must sign what is said there
            ensure_webhook(connection, user.id, salt=new_salt(), now=now)
        insert_row(connection, replace(entry, task_id=task_id))
        created = {
            "status": "queued",
            "model": model.name,
            "model_kind": model.kind,
            "run": 1,
            "attempt": 0,
            "stop_requested": False,
        }
        self._events.insert(connection, task_id, [NewEvent("task.created", created)])
        if not new.is_held:
            engine.submit(connection, task_id=task_id, run=1, user_id=user.id)
        return task_body(self._get(connection, user, task_id))

    async def _fullness(self, user: UserRow) -> Refused | None:
        """Why the user may make no further task: its commands could keep nothing."""
        try:
            await self._stored.require_any(user.id)
        except Refused as refused:
            if refused.code != "storage_full":
                raise
            return refused
        return None

    async def _check(self, new: NewTask) -> None:
        if not new.goal.strip():
            raise _wrong_field("goal", "goal_empty")
        if len(new.goal) > GOAL_MOST:
            raise _wrong_field("goal", "goal_too_long", length=len(new.goal), most=GOAL_MOST)
        unknown = self._catalogue.unknown(new.tools or ())
        if unknown:
            raise _wrong_field(
                "tools", "unknown_tools", unknown=shown(", ".join(unknown)), known=", ".join(self._catalogue.names)
            )
        check_url(self._reach, "webhook_url", new.webhook_url)
        model = self._model_of(new)
        if "cost_usd" in (new.limits or {}):
            unpriced = await asyncio.to_thread(self._find_unpriced, model)
            if unpriced is not None:
                raise _wrong_field("limits", "cost_limit_unknown", model=unpriced.name)

    def _model_of(self, new: NewTask) -> ModelChoice:
        model = self._models.find_offered(new.model)
        if model is None:
            known = ", ".join(choice.name for choice in self._models.offered)
            raise _wrong_field("model", "unknown_model", model=shown(new.model or ""), known=known)
        return model

    def _find_unpriced(self, model: ModelChoice) -> ModelChoice | None:
        """The first of the models that may work for a task of `model` whose answers have no known price."""
        may_work = (model, *self._models.fallback) if model.kind == "model" else (model,)
        return next((choice for choice in may_work if not self._prices.is_known(choice)), None)

    async def start(self, user: UserRow, task_id: int) -> TaskRecord:
        """Queue a task that was made with `hold`.

        Raises:
            Refused: task_not_found, task_already_started, storage_full, starting.
        """
        engine = self._require_engine()
        full = await self._fullness(user)
        entry = self._trail.row("task.started", user=user, task_id=task_id)

        def write(connection: Connection) -> TaskRecord:
            row = self._get_to_change(connection, user, task_id)
            if row.status != "queued" or queries.get_held_until(connection, task_id) is None:
                raise Refused("task_already_started", task_id=task_id, status=row.status)
            if full is not None:
                raise full
            queries.update_task(connection, task_id, held_until=None, updated_at=self._clock())
            engine.submit(connection, task_id=task_id, run=row.run, user_id=user.id)
            insert_row(connection, entry)
            return self._get(connection, user, task_id)

        return await self._database.write(write)

    async def get(self, user: UserRow, task_id: int) -> TaskRecord:
        """The user's task.

        Raises:
            Refused: task_not_found, also when it is somebody else's.
        """
        looked_for = looked_up(task_id)
        return found(await self._database.find(queries.OWN_TASK.of_known, user_id=user.id, task_id=looked_for), task_id)

    def _get(self, connection: Connection, user: UserRow, task_id: int) -> TaskRecord:
        row = queries.get_task(connection, user.id, task_id) if 0 < task_id <= ID_MOST else None
        if row is None:
            raise Refused("task_not_found", task_id=task_id)
        return row

    def _get_to_change(self, connection: Connection, user: UserRow, task_id: int) -> TaskRecord:
        """`_get`, and nobody else changes it before the transaction ends."""
        self._get(connection, user, task_id)
        row = queries.get_task(connection, user.id, task_id, is_to_change=True)
        if row is None:
            raise Refused("task_not_found", task_id=task_id)
        return row

    async def list(self, user: UserRow, wanted: TaskFilter) -> Sequence[TaskRecord]:
        """The user's tasks, newest first."""
        if wanted.is_page and wanted.limit is not None and wanted.limit <= PAGE_MOST:
            before = ID_MOST if wanted.before is None else wanted.before
            page = await self._database.find_all(queries.NEWEST, user_id=user.id, before=before, limit=wanted.limit)
            return [TaskRecord._make(row) for row in page]
        return await self._database.scan(lambda connection: queries.list_tasks(connection, user.id, wanted))

    async def read_events(self, task: TaskRecord, *, tail: int | None = None) -> Sequence[bytes]:
        """The frames of a task the caller has been shown to own: all, or the last `tail`."""
        most = task.last_seq if tail is None else tail
        if most <= FEW_EVENTS:
            rows = await self._database.find_all(UNTIL, task_id=task.id, last_seq=task.last_seq, most=most)
            return [row[0] for row in reversed(rows)]
        if tail is None:
            return await self._events.read_all(task.id)
        return await self._events.read_tail(task.id, tail)

    async def open_work_dir(self, user: UserRow, task_id: int) -> WorkDir:
        """The work_dir of the user's task, made if nothing has been in it yet.

        Raises:
            Refused: task_not_found.
        """
        await self.get(user, task_id)
        work_dir = await asyncio.to_thread(self._work_dirs.create, task_id, owner=self._task_uid(task_id))
        try:
            await self.get(user, task_id)
        except Refused:  # deleted meanwhile: what was just made again must not stay
            await asyncio.to_thread(self._work_dirs.delete, task_id)
            raise
        return work_dir

    async def find_outputs(self, user: UserRow, task_id: int) -> Outputs:
        """The whole outputs of the tool calls of the user's task.

        Raises:
            Refused: task_not_found.
        """
        await self.get(user, task_id)
        return self._work_dirs.outputs(task_id)

    async def stop(self, user: UserRow, task_id: int, *, entry: AuditRow | None = None) -> StopAnswer:
        """Stop a task; answers within 2 s with its status as it then is.

        Args:
            user: Its owner.
            task_id: The task.
            entry: What the audit log is told; default: that its owner has stopped it.

        Raises:
            Refused: task_not_found, task_already_ended (completed or failed).
        """
        told = entry or self._trail.row("task.stopped", user=user, task_id=task_id)
        try:
            await self._database.write(lambda connection: self._request_stop(connection, user, task_id, told))
        except Refused as refused:
            if refused.code not in STORAGE_FAULTS:
                raise
            # What fills the disk must be stoppable all the same; its end is stored once there is room.
            await self.get(user, task_id)  # a full disk may have been met before the owner was checked
            if not self._control.stop(task_id):
                raise
            self._trail.note(told)
        status = await self._wait_ended(user, task_id, STOP_ANSWER_SECONDS)
        key = "task_stopped" if status == "stopped" else "task_stop_requested"
        return {"message": text(key, task_id=task_id), "status": status}

    def _request_stop(self, connection: Connection, user: UserRow, task_id: int, entry: AuditRow) -> None:
        row = self._get_to_change(connection, user, task_id)
        if row.status == "stopped" or (row.stop_requested and row.status not in ENDED):
            return
        if row.status in ENDED:
            raise Refused("task_already_ended", task_id=task_id, status=row.status)
        insert_row(connection, entry)
        if row.status == "queued":
            self._end_queued(connection, row)
            return
        queries.request_stop(connection, task_id, self._clock())
        fields = {
            "status": row.status,
            "model": row.model,
            "model_kind": row.model_kind,
            "run": row.run,
            "attempt": row.attempt,
            "stop_requested": True,
        }
        self._events.insert(connection, task_id, [NewEvent("task.status", fields)])

    def _end_queued(self, connection: Connection, row: TaskRecord) -> None:
        """End a task that no worker has taken yet; what the engine still holds of it finds nothing to run."""
        now = self._clock()
        queries.change_status(
            connection, row.id, "stopped", stop_requested=True, finished_at=now, updated_at=now, held_until=None
        )
        finished = {
            "status": "stopped",
            "result": None,
            "error": None,
            "usage": orjson.loads(row.usage),
            "files": [],
            "files_total": 0,
        }
        self._events.insert(connection, row.id, [NewEvent("task.finished", finished)])

    async def _wait_ended(self, user: UserRow, task_id: int, seconds: float) -> Status:
        deadline = asyncio.get_running_loop().time() + seconds
        with self._events.watching(task_id) as changed:
            while True:
                changed.clear()
                status: Status = (await self.get(user, task_id)).status
                left = deadline - asyncio.get_running_loop().time()
                if status in ENDED or left <= 0:
                    return status
                await wait_changed(changed, left)

    async def delete(self, user: UserRow, task_id: int) -> None:
        """Remove a task with its processes, events and work_dir; hidden at once.

        Raises:
            Refused: task_not_found; task_being_deleted when it takes over 5 s or a part of it failed (the rest is
                finished in the background); disk_full; disk_unavailable when the files are elsewhere.
        """
        if not 0 < task_id <= ID_MOST:
            raise Refused("task_not_found", task_id=task_id)
        self.deletions.check_folder()
        try:
            runs = await self._hide(user, task_id)
        except Refused as refused:
            if refused.code != "disk_full":
                raise
            await self._empty(user, task_id)  # what fills the disk must be deletable all the same
            runs = await self._hide_emptied(user, task_id)
        job = self.deletions.start(task_id, runs)
        await asyncio.wait({job}, timeout=DELETE_ANSWER_SECONDS)
        if not job.done() or job.cancelled() or job.exception() is not None:
            raise Refused("task_being_deleted", task_id=task_id, retry_after_seconds=5)

    async def _hide(self, user: UserRow, task_id: int) -> int:
        """Hide the task from everybody; how many runs it had."""
        now = self._clock()
        entry = self._trail.row("task.deleted", user=user, task_id=task_id)

        def hide(connection: Connection) -> int:
            hidden = queries.hide_task(connection, user.id, task_id, now)
            if hidden is None:
                raise Refused("task_not_found", task_id=task_id)
            insert_row(connection, entry)
            return hidden[1]

        return await self._database.write(hide)

    async def _hide_emptied(self, user: UserRow, task_id: int) -> int:
        try:
            return await self._hide(user, task_id)
        except Refused as refused:
            if refused.code != "disk_full":
                raise
            # Its files are gone, so "nothing was changed" would not be true.
            raise Refused("task_being_deleted", task_id=task_id, retry_after_seconds=5) from refused

    async def _empty(self, user: UserRow, task_id: int) -> None:
        """Stop the task and remove its files, without a word in the database."""
        await self.get(user, task_id)
        self._control.stop(task_id)
        with contextlib.suppress(TimeoutError):  # the run's end can't be stored either before there is room
            await asyncio.wait_for(self._control.wait_over(task_id), STOP_ANSWER_SECONDS)
        await asyncio.to_thread(self._work_dirs.delete, task_id)

    async def tidy(self) -> None:
        """End held tasks whose time is up, forget old idempotency answers; called now and then."""
        now = self._clock()
        for task_id in await self._database.scan(lambda connection: queries.list_overdue_held(connection, now)):
            await self._end_overdue(task_id)
        await self._database.write(lambda connection: queries.purge_answers(connection, now - ANSWER_KEPT_MS))

    async def _end_overdue(self, task_id: int) -> None:
        def write(connection: Connection) -> None:
            row = queries.get_held(connection, task_id)
            if row is not None:
                self._end_queued(connection, row)

        await self._database.write(write)

    def _require_engine(self) -> Engine:
        if self.engine is None:
            raise Refused("starting", retry_after_seconds=1)
        return self.engine


def looked_up(task_id: int) -> int:
    """The id to look a task up by: an id that no task can have is that of none."""
    return task_id if 0 < task_id <= ID_MOST else 0


def found(row: Sequence[Any] | None, task_id: int) -> TaskRecord:
    """The task that a look-up has found.

    Raises:
        Refused: task_not_found.
    """
    if row is None:
        raise Refused("task_not_found", task_id=task_id)
    return TaskRecord._make(row)


def _wrong_field(field: str, code: str, **params: Any) -> Refused:
    item: ErrorItem = {"loc": ["body", field], "msg": text(code, **params), "type": code}
    return Refused(code, errors=[item], **params)
