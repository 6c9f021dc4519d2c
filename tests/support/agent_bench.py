"""Runs an agent as the server would: real database, work_dir and events, and no engine."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, insert, text

from beray.protocol.events import Event
from beray.protocol.status import ENDED, Status
from beray.server.agent.budget import Limits as Budgets
from beray.server.agent.budget import RunLimits
from beray.server.agent.ledger import Ledger
from beray.server.agent.loop import run_agent
from beray.server.agent.models.choice import RULES, ModelChoice
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.run import AgentRun, Outcome
from beray.server.agent.stuck import StuckRules
from beray.server.agent.tools import TOOL_NAMES
from beray.server.clock import Clock, system_clock
from beray.server.db import messages, tables, tasks
from beray.server.db.attempts import Attempt
from beray.server.db.sqlite import SqliteDatabase
from beray.server.events.log import EventLog, NewEvent, frame_body
from beray.server.events.wakeups import Wakeups
from beray.server.messages import language_of
from beray.server.sandbox.base import Limits
from beray.server.tasks.conversation import Conversation
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.task_room import TaskRoom
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs
from tests.support.databases import make_sqlite
from tests.support.plain_sandbox import PlainSandbox
from tests.support.typed_dicts import faults

ENOUGH = RunLimits()
RULES_MODEL = ModelChoice(RULES, "rules")


class Crash(BaseException):
    """The process "dies" here: nothing of the agent may catch it, as nothing catches SIGKILL."""


class CrashAt:
    """Dies at the point with this number: before a commit, or between `tool.started` and the call's body.

    After any other commit nothing happens before the next one, so dying there is the same.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, when: str, types: tuple[str, ...]) -> None:
        if when == "before" or "tool.started" in types:
            self.seen.append((when, types))
            if len(self.seen) == self.number:
                raise Crash(when, types)


@dataclass
class Bench:
    """One task and all it needs.

    Attributes:
        run_number: Which run of the task is played; `say` to a task that has ended begins the next.
        crash: Called before each commit with the types of its events and after it with none; may raise Crash.
    """

    root: Path
    database: SqliteDatabase
    sandbox: PlainSandbox
    python: str | None
    run_number: int = 1
    attempt: int = 0
    wakeups: Wakeups = field(default_factory=Wakeups)
    clock: Clock = system_clock
    crash: Callable[[str, tuple[str, ...]], None] | None = None

    @property
    def work_dir(self) -> Path:
        return self.root / "work"

    async def run(
        self, goal: str, *, model: ModelChoice = RULES_MODEL, limits: RunLimits | Budgets = ENOUGH, **changes: Any
    ) -> Outcome:
        """One attempt at the task; a further one continues it."""
        self.attempt = await self.database.write(self._take)
        if self.run_number > 1:
            goal = await self.database.read(self._further_goal)
        run = AgentRun(
            task_id=1,
            run=self.run_number,
            attempt=self.attempt,
            goal=goal,
            tools=TOOL_NAMES,
            model=model,
            ledger=self._ledger(limits),
            prices=PriceTable(),
            context_tokens=None,
            stuck=StuckRules(),
            language=language_of(goal),
            work_dir=WorkDir(self.work_dir, owner=None),
            output_dir=str(self.root / "output"),
            sandbox=self.sandbox,
            sandbox_limits=Limits(),
            room=TaskRoom(StoredBytes(self.database, WorkDirs(self.root), most=0), 1, 1, self.fence),
            uid=None,
            python=self.python,
            database=self.database,
            emit=self._emitter(self.fence),
            clock=self.clock,
        )
        return await run_agent(replace(run, **changes))

    def _ledger(self, limits: RunLimits | Budgets) -> Ledger:
        budgets = limits if isinstance(limits, Budgets) else Budgets(limits)
        return Ledger(self.database, self.clock, 1, budgets, task_id=1, run=self.run_number)

    def _further_goal(self, connection: Connection) -> str:
        first = messages.first_of_run(connection, 1, self.run_number)
        assert first is not None
        return first.content

    async def end(self, status: Status) -> None:
        """End the run, as its runner would."""
        await self.database.write(lambda connection: tasks.change_status(connection, 1, status, finished_at=1) and None)

    async def say(self, content: str) -> None:
        """What the user says, as the service puts it."""

        def put(connection: Connection) -> None:
            row = tasks.get_task(connection, 1, 1, is_to_change=True)
            assert row is not None
            conversation = Conversation(self.log, system_clock)
            conversation.check(connection, row)
            if row.status in ENDED:
                self.run_number = conversation.begin_again(connection, row, content, ModelChoice("m", "model"))
                self.attempt = 0
            elif row.status == "waiting":
                conversation.answer(connection, row, content)
            else:
                conversation.add(connection, row, content)

        await self.database.write(put)

    async def task(self) -> Any:
        """The task's row."""
        return await self.database.read(lambda connection: tasks.get_task(connection, 1, 1))

    @property
    def fence(self) -> Attempt:
        return Attempt(self.run_number, self.attempt)

    async def events(self, *types: str) -> list[dict[str, Any]]:
        """The events so far, in order; of these types, or all. Each must be what its type says."""
        frames = await self.log.read_all(1)
        bodies = [json.loads(frame_body(frame)) for frame in frames]
        assert [body["seq"] for body in bodies] == list(range(1, len(bodies) + 1))
        assert [fault for body in bodies for fault in faults(body, Event, body["type"])] == []
        return [body for body in bodies if not types or body["type"] in types]

    @property
    def log(self) -> EventLog:
        return EventLog(self.database, self.wakeups, system_clock)

    def _take(self, connection: Connection) -> int:
        task = tables.task
        status = text("CASE WHEN status = 'queued' THEN 'running' ELSE status END")
        return connection.execute(
            task.update().values(attempt=task.c.attempt + 1, status=status).returning(task.c.attempt)
        ).scalar_one()

    def _emitter(self, attempt: Attempt) -> Any:
        log = self.log

        async def emit(*events: NewEvent, also: Callable[[Connection], None] | None = None) -> None:
            types = tuple(event.type for event in events)
            if self.crash is not None:
                self.crash("before", types)
            await log.append(1, events, attempt=attempt, also=also)
            if self.crash is not None:
                self.crash("after", types)

        return emit


def open_bench(root: Path, *, python: str | None) -> Bench:
    """A bench below `root`, fresh or as the attempt before has left it; close its database after use."""
    path = root / "beray.sqlite"
    if not path.exists():
        (root / "work").mkdir(parents=True)
        _make_database(path)
    database = SqliteDatabase(path)
    database.open()
    bench = Bench(root, database, PlainSandbox(), python)
    database.deliver = bench.wakeups.hear
    return bench


def _make_database(path: Path) -> None:
    make_sqlite(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(insert(tables.user).values(id=1, email="user@example.com", created_at=0))
        connection.execute(
            insert(tables.task).values(
                id=1,
                user_id=1,
                goal="The first goal.",
                status="running",
                created_at=0,
                updated_at=0,
                usage="{}",
                model="openai:scripted",
                model_kind="model",
                run=1,
            )
        )
    engine.dispose()
