"""One task's run, from taken to finished: what happens around the agent.

A run ends in one of three ways: the agent ends it (completed, failed), a user stops it, or the process goes away. Only
the first two are recorded; after the third the engine calls `run_task` again and the agent goes on at its last
checkpoint. No run is completed before the agent has been told all that its user said: a message that came in the last
moment makes it go on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from beray.protocol.status import Status
from beray.protocol.types import JsonObject, TaskError, Usage
from beray.server.agent.budget import Limits as Budgets
from beray.server.agent.ledger import Ledger
from beray.server.agent.models.choice import Models
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.run import AgentRun, Asking, Outcome
from beray.server.agent.stuck import StuckRules
from beray.server.agent.tools import TOOL_NAMES
from beray.server.agent.tools.catalogue import ToolCatalogue
from beray.server.clock import Clock
from beray.server.db import tasks as queries
from beray.server.db.agent_runs import has_open_call
from beray.server.db.connect import Queries
from beray.server.db.messages import count_waiting
from beray.server.db.stored import put_bytes
from beray.server.engine.base import Displaced
from beray.server.errors import STORAGE_FAULTS, Refused
from beray.server.events.log import EventLog, Fenced, NewEvent
from beray.server.messages import language_of, text
from beray.server.sandbox.base import Capabilities, Limits, Sandbox
from beray.server.tasks.control import RunControl, RunHandle
from beray.server.work_dirs.stored import Measured, StoredBytes
from beray.server.work_dirs.task_room import TaskRoom
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs

FINISHED_FILES = 100  # files named in task.finished at most (WIRE.md); the tree has them all
STORE_AGAIN_SECONDS = 1.0  # between tries to store how a run begins or ends (the disk may be full for a while)
INTERRUPTS_MOST = 20  # a run whose process goes away that often is what ends it, and is given up
CANCEL_SECONDS = 5  # a stop has failed if the agent has not let go by then; measured: well under 1 s

_FAILURES: Final = {  # code: sentence and hint
    "internal_error": ("task_internal_error", "task_internal_error_hint"),
    "disk_full": ("task_disk_full", "task_disk_full_hint"),
    "interrupted": ("task_interrupted", "task_interrupted_hint"),
    "model_not_offered": ("model_not_offered", "model_not_offered_hint"),
    "tool_not_offered": ("tool_not_offered", "tool_not_offered_hint"),
}

T = TypeVar("T")

log = logging.getLogger("beray.tasks")


class _HasMore(Exception):
    """A run that was about to be completed has something to do yet."""


class RunAgent(Protocol):
    """The agent: one run of a task, to its outcome."""

    async def __call__(self, run: AgentRun) -> Outcome: ...


@dataclass(frozen=True)
class Workshop:
    """What every run in this process works with.

    Attributes:
        connections: To the models' servers, which outlive a run.
        answer_seconds: How long a question waits for the user; 0: none is asked.
    """

    models: Models
    sandbox: Sandbox
    capabilities: Capabilities
    sandbox_limits: Limits
    budgets: Budgets
    prices: PriceTable
    context_tokens: int | None
    stuck: StuckRules | None
    task_uid: Callable[[int], int | None]
    catalogue: ToolCatalogue = field(default_factory=ToolCatalogue)
    connections: ModelConnections | None = None
    answer_seconds: int = 0


class Runner:
    """Runs tasks for the engine."""

    def __init__(
        self,
        *,
        database: Queries,
        events: EventLog,
        work_dirs: WorkDirs,
        control: RunControl,
        clock: Clock,
        run_agent: RunAgent,
        stored: StoredBytes,
    ) -> None:
        self._database = database
        self._events = events
        self._work_dirs = work_dirs
        self._control = control
        self._clock = clock
        self._run_agent = run_agent
        self._stored = stored
        self.workshop: Workshop | None = None
        """Set by `create_app` once the sandbox has been probed, before the engine starts."""

    async def run_task(self, task_id: int, run: int) -> None:
        """Run a task to its end; does nothing if there is nothing left to run."""
        with self._control.running(task_id) as handle:
            record = await self._take(task_id, run)
            if record is None:
                return
            if record.stop_requested:
                handle.stop.set()
            try:
                await self._run(record, handle)
            except Fenced as fenced:  # deleted, or taken over: nothing of this attempt counts any more
                if not await self._database.read(lambda connection: queries.is_over(connection, task_id, run)):
                    raise Displaced(f"task {task_id}: attempt {record.attempt}") from fenced

    async def _take(self, task_id: int, run: int) -> queries.RunRecord | None:
        workshop = self._require_workshop()

        def take(connection: Connection) -> queries.RunRecord | None:
            record = queries.take_run(connection, task_id, run, self._clock())
            if record is None:
                return None
            is_there = record.model is not None and workshop.models.find(record.model) is not None
            if record.asked_model is None and not is_there:
                default = workshop.models.default  # who named no model gets today's, after a restart with another too
                record = replace(record, model=default.name, model_kind=default.kind)
            queries.update_task(connection, task_id, model=record.model, model_kind=record.model_kind, held_until=None)
            self._events.insert(connection, task_id, [NewEvent("task.started", _status_fields(record))])
            return record

        record = await self._store(take)
        if record is None:
            return None
        log.info("run started", extra={"task_id": task_id, "run": run, "attempt": record.attempt})
        return record

    async def _run(self, record: queries.RunRecord, handle: RunHandle) -> None:
        if record.interrupts > INTERRUPTS_MOST:
            log.error("run given up", extra={"task_id": record.id, "run": record.run})
            await self._finish(record, _failed(record, "interrupted", retryable=False))
            return
        lacking = self._not_offered(record)
        if lacking is not None:
            await self._finish(record, None if handle.stop.is_set() else lacking)
            return
        outcome = await self._try(record, handle, first_turn=1)
        while not await self._end(record, outcome):
            assert outcome is not None, "a stop ends the run, whatever the user has said"
            outcome = await self._try(record, handle, first_turn=outcome.turns + 1)

    async def _try(self, record: queries.RunRecord, handle: RunHandle, *, first_turn: int) -> Outcome | None:
        try:
            return await self._until_stopped(record, handle, first_turn=first_turn)
        except Fenced:
            raise
        except Exception as error:  # the edge of a worker: a fault must end the task, not leave it running for ever
            log.exception("run failed", extra={"task_id": record.id, "run": record.run})
            return None if handle.stop.is_set() else _failure(record, error)

    async def _end(self, record: queries.RunRecord, outcome: Outcome | None) -> bool:
        """Record how the run ended; False if it has to go on."""
        try:
            return await self._finish(record, outcome)
        except Fenced:
            raise
        except Exception:  # an outcome that can't be kept must not leave the task running for ever either
            log.exception("outcome not kept", extra={"task_id": record.id, "run": record.run})
            return await self._finish(record, _failed(record, "internal_error", retryable=True))

    def _not_offered(self, record: queries.RunRecord) -> Outcome | None:
        """The end of a run that was made at another process, or before this one was started with less."""
        workshop = self._require_workshop()
        if workshop.models.find(record.model) is None:
            log.error("run needs a model that this process has not", extra={"task_id": record.id})
            return _failed(record, "model_not_offered", retryable=False)
        unknown = workshop.catalogue.unknown(_asked_tools(record) or ())
        missing = [name for name in unknown if name not in TOOL_NAMES]  # those are left out where they can't work
        if missing:
            log.error("run needs tools that this process has not", extra={"task_id": record.id, "tools": missing})
            return _failed(record, "tool_not_offered", retryable=True, tools=", ".join(missing))
        return None

    async def _until_stopped(self, record: queries.RunRecord, handle: RunHandle, *, first_turn: int) -> Outcome | None:
        """The agent's outcome, or None if a user stopped it first. Cancelled itself, it takes the agent with it."""
        agent = asyncio.create_task(self._work(record, first_turn=first_turn))
        stop = asyncio.create_task(handle.stop.wait())
        try:
            await asyncio.wait({agent, stop}, return_when=asyncio.FIRST_COMPLETED)
            return agent.result() if agent.done() else None
        finally:
            stop.cancel()
            if not agent.done():
                agent.cancel()
                await asyncio.wait({agent}, timeout=CANCEL_SECONDS)

    async def _work(self, record: queries.RunRecord, *, first_turn: int) -> Outcome:
        workshop = self._require_workshop()
        model = workshop.models.find(record.model)
        assert model is not None, "a run whose model is not offered has been ended"
        can_ask = workshop.answer_seconds > 0 or await self._has_question(record)
        tools = _tools(record, workshop, can_ask=can_ask)
        uid = workshop.task_uid(record.id)
        work_dir = await _until_stored(lambda: asyncio.to_thread(self._work_dirs.create, record.id, owner=uid))
        return await self._run_agent(
            AgentRun(
                task_id=record.id,
                run=record.run,
                attempt=record.attempt,
                goal=record.goal,
                model=model,
                tools=tools,
                sources=workshop.catalogue.sources_of(tools),
                ledger=self._ledger(record, workshop.budgets),
                prices=workshop.prices,
                context_tokens=workshop.context_tokens,
                stuck=workshop.stuck,
                language=language_of(record.goal),
                work_dir=work_dir,
                output_dir=str(self._work_dirs.output_dir(record.id)),
                sandbox=workshop.sandbox,
                sandbox_limits=workshop.sandbox_limits,
                room=TaskRoom(self._stored, record.user_id, record.id, record.fence),
                uid=uid,
                python=workshop.capabilities.python,
                database=self._database,
                emit=_Emit(self._events, record),
                clock=self._clock,
                fallback=workshop.models.fallback if model.kind == "model" else (),
                first_turn=first_turn,
                asking=self._asking(record) if can_ask else None,
                connections=workshop.connections,
            )
        )

    async def _has_question(self, record: queries.RunRecord) -> bool:
        """Whether the attempt before has left a question, which is to come to its end whatever is set here."""
        if record.attempt == 1:
            return False
        return await self._database.read(
            lambda connection: has_open_call(connection, record.id, record.run, "ask_user")
        )

    def _asking(self, record: queries.RunRecord) -> Asking:
        return Asking(self._require_workshop().answer_seconds, lambda: self._events.watching(record.id))

    def _ledger(self, record: queries.RunRecord, budgets: Budgets) -> Ledger:
        asked = {} if record.limits is None else orjson.loads(record.limits)
        return Ledger(
            database=self._database,
            clock=self._clock,
            user_id=record.user_id,
            task_id=record.id,
            run=record.run,
            limits=budgets.asked(asked),
        )

    async def _finish(self, record: queries.RunRecord, outcome: Outcome | None) -> bool:
        """Record the end; False if it is none, since the user has said something that the agent has not been told."""
        found = await self._measure(record.id)  # before the list: it opens what a command has closed
        files, files_total = await asyncio.to_thread(self._list_files, record.id)
        status, result, error = _ending(outcome)

        def write(connection: Connection) -> None:
            now = self._clock()
            usage = self._usage(connection, record, outcome)
            changes = {} if usage is None else {"usage": orjson.dumps(usage).decode()}
            has_ended = queries.change_status(
                connection,
                record.id,
                status,
                only_attempt=record.fence,
                result=result,
                error=None if error is None else orjson.dumps(error).decode(),
                finished_at=now,
                updated_at=now,
                question=None,
                **changes,
            )
            if not has_ended:
                raise Fenced(f"task {record.id}: {record.fence} may not end it")
            # The row is held from here on: what is said later finds the task ended, and begins a further run.
            reads = record.model_kind == "model"  # fixed rules leave it to a run that has a model
            if status == "completed" and reads and count_waiting(connection, record.id):
                raise _HasMore
            if found is not None:
                put_bytes(connection, record.id, found.size, before=found.before)
            row = queries.get_task(connection, record.user_id, record.id)
            assert row is not None, "its status was changed in this transaction"
            finished = NewEvent(
                "task.finished",
                {
                    "status": status,
                    "result": result,
                    "error": error,
                    "usage": orjson.loads(row.usage),
                    "files": files,
                    "files_total": files_total,
                },
            )
            events = [finished] if error is None else [NewEvent("error", dict(error)), finished]
            self._events.insert(connection, record.id, events)

        try:
            await self._store(write)
        except _HasMore:
            return False
        log.info("run finished", extra={"task_id": record.id, "run": record.run, "status": status})
        return True

    def _usage(self, connection: Connection, record: queries.RunRecord, outcome: Outcome | None) -> Usage | None:
        """What the task has used; None: the same as before this run."""
        if outcome is not None and outcome.usage is not None:
            return outcome.usage
        return self._ledger(record, self._require_workshop().budgets).close(connection, record.model_kind)

    async def _store(self, query: Callable[[Connection], T]) -> T:
        """Write, however long the database can't: a run whose begin or end is lost never ends for its user."""
        return await _until_stored(lambda: self._database.write(query), may_pass=_is_of_the_database)

    def _list_files(self, task_id: int) -> tuple[list[JsonObject], int]:
        try:
            stamps = self._work_dir(task_id).snapshot()
        except (OSError, Refused):  # a dead disk, or no work_dir any more, must not keep the task from ending
            log.warning("work_dir could not be listed", extra={"task_id": task_id}, exc_info=True)
            return [], 0
        names = sorted(stamps)
        return [{"path": name, "size": stamps[name].size} for name in names[:FINISHED_FILES]], len(names)

    async def _measure(self, task_id: int) -> Measured | None:
        try:
            return await self._stored.look(task_id)
        except OSError:  # what was known of it stays
            log.warning("work_dir could not be measured", extra={"task_id": task_id}, exc_info=True)
            return None

    def _work_dir(self, task_id: int) -> WorkDir:
        return self._work_dirs.get(task_id, owner=self._require_workshop().task_uid(task_id))

    def _require_workshop(self) -> Workshop:
        assert self.workshop is not None, "the engine was started before the sandbox was ready"
        return self.workshop


def _is_of_storage(error: Exception) -> bool:
    return isinstance(error, Refused) and error.code in STORAGE_FAULTS


def _is_of_the_database(error: Exception) -> bool:
    return isinstance(error, OperationalError) or _is_of_storage(error)


async def _until_stored(
    store: Callable[[], Awaitable[T]], *, may_pass: Callable[[Exception], bool] = _is_of_storage
) -> T:
    """Store, again and again while that fails for a reason that may pass."""
    has_failed = False
    while True:
        try:
            return await store()
        except Exception as error:  # looked at, and raised again if it is another's
            if not may_pass(error):
                raise
            if not has_failed:
                log.warning("how a run goes could not be stored; trying until it can", exc_info=True)
            has_failed = True
        await asyncio.sleep(STORE_AGAIN_SECONDS)


class _Emit:
    """Appends events for one attempt; usage goes into the task's row in the same transaction.

    While nothing can be stored the run waits: it has lost nothing, and goes on when there is room. A command that
    prints waits with it, a stop ends it, and its wall time goes on.
    """

    def __init__(self, events: EventLog, record: queries.RunRecord) -> None:
        self._events = events
        self._record = record

    async def __call__(self, *events: NewEvent, also: Callable[[Connection], None] | None = None) -> None:
        usage = next((event.fields["usage"] for event in reversed(events) if event.type == "usage.updated"), None)

        def write(connection: Connection) -> None:
            if usage is not None:
                queries.set_usage(connection, self._record.id, orjson.dumps(usage).decode())
            if also is not None:
                also(connection)

        changes = write if usage is not None or also is not None else None  # events alone are stored with others'
        await _until_stored(
            lambda: self._events.append(self._record.id, events, attempt=self._record.fence, also=changes)
        )


def _status_fields(record: queries.RunRecord) -> JsonObject:
    return {
        "status": record.status,
        "model": record.model,
        "model_kind": record.model_kind,
        "run": record.run,
        "attempt": record.attempt,
        "stop_requested": record.stop_requested,
    }


def _tools(record: queries.RunRecord, workshop: Workshop, *, can_ask: bool) -> tuple[str, ...]:
    asked = _asked_tools(record)
    wanted = workshop.catalogue.default if asked is None else asked
    if can_ask and asked is None and "ask_user" not in wanted:
        wanted = (*wanted, "ask_user")
    missing = set()
    if workshop.capabilities.python is None:
        missing.add("python")
    if not can_ask:
        missing.add("ask_user")
    return tuple(name for name in wanted if name not in missing)


def _asked_tools(record: queries.RunRecord) -> tuple[str, ...] | None:
    """What the task's maker has asked for; None: the default set."""
    return None if record.tools is None else tuple(orjson.loads(record.tools))


def _ending(outcome: Outcome | None) -> tuple[Status, str | None, TaskError | None]:
    if outcome is None:
        return "stopped", None, None
    return ("completed" if outcome.is_completed else "failed"), outcome.result, outcome.error


def _failure(record: queries.RunRecord, error: Exception) -> Outcome:
    is_full = isinstance(error, Refused) and error.code == "disk_full"
    return _failed(record, "disk_full" if is_full else "internal_error", retryable=True)


def _failed(record: queries.RunRecord, code: str, *, retryable: bool, **fields: str) -> Outcome:
    message, hint = _FAILURES[code]
    language = language_of(record.goal)
    told: TaskError = {
        "code": code,
        "message": text(message, language, model=record.model, **fields),
        "hint": text(hint, language, **fields),
        "retryable": retryable,
    }
    return Outcome(is_completed=False, result=None, error=told, usage=None)
