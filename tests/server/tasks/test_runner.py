"""A run around the agent: it begins and ends for its user, whatever happens to the disk meanwhile."""

import asyncio
import contextlib
import errno
import json
import logging
from unittest.mock import AsyncMock, Mock

import pytest
from sqlalchemy import Connection, make_url, text

from beray.server.agent.budget import Limits as Budgets
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.progress import Estimate, Progress, Used
from beray.server.agent.run import AgentRun, Outcome
from beray.server.agent.stuck import StuckRules
from beray.server.agent.tools import TOOL_NAMES
from beray.server.agent.tools.catalogue import ToolCatalogue
from beray.server.audit import AuditTrail
from beray.server.clock import DAY_MS
from beray.server.db import agent_runs, usage
from beray.server.db import tasks as queries
from beray.server.db.agent_runs import ToolCallRow, start_tool_call
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.engine.base import Displaced
from beray.server.errors import Refused
from beray.server.events.log import EventLog, NewEvent, frame_body
from beray.server.events.wakeups import Wakeups
from beray.server.sandbox.base import Capabilities, Limits
from beray.server.tasks import runner as runner_module
from beray.server.tasks import service as service_module
from beray.server.tasks.control import RunControl, RunHandle
from beray.server.tasks.conversation import Conversation
from beray.server.tasks.runner import RunAgent, Runner, Workshop
from beray.server.tasks.service import Tasks
from beray.server.tasks.view import NO_USAGE
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database
from tests.support.plain_sandbox import PlainSandbox
from tests.support.waiting import until, wait_until

AT = 1_800_000_000_123


@pytest.fixture
def database(tmp_path):
    with seeded_database(tmp_path / "beray.db", 1, status="queued") as database:
        yield database


@pytest.fixture
def control():
    return RunControl()


async def set_most_pages(database: Database, pages: int) -> None:
    """How far the database may grow; below what it has: no further, as on a full disk."""
    await database.write(lambda connection: connection.execute(text(f"PRAGMA max_page_count = {pages}")).scalar())


def make_runner(
    database: Database, tmp_path, run_agent: RunAgent, control: RunControl, **workshop
) -> tuple[Runner, EventLog]:
    events = EventLog(database, Wakeups(), lambda: AT)
    runner = Runner(
        database=database,
        events=events,
        work_dirs=WorkDirs(tmp_path / "tasks"),
        control=control,
        clock=lambda: AT,
        run_agent=run_agent,
        stored=StoredBytes(database, WorkDirs(tmp_path / "tasks"), most=0),
    )
    runner.workshop = Workshop(
        models=workshop.pop("models", Models(ModelChoice("openai:m", "model"))),
        sandbox=PlainSandbox(),
        capabilities=Capabilities("plain", (), None),
        sandbox_limits=Limits(),
        budgets=Budgets(),
        prices=PriceTable(),
        context_tokens=None,
        stuck=StuckRules(),
        task_uid=lambda task_id: None,
        **workshop,
    )
    return runner, events


def make_tasks(database: Database, tmp_path, events: EventLog, control: RunControl) -> Tasks:
    return Tasks(
        database=database,
        events=events,
        work_dirs=WorkDirs(tmp_path / "tasks"),
        control=control,
        clock=lambda: AT,
        models=Models(ModelChoice("beray:rules", "rules")),
        trail=AuditTrail(database, lambda: AT),
        task_uid=lambda task_id: None,
        stored=StoredBytes(database, WorkDirs(tmp_path / "tasks"), most=0),
        prices=PriceTable(),
    )


async def test_run_that_ends_on_a_full_disk_is_ended_when_there_is_room(
    database, tmp_path, control, monkeypatch, caplog
):
    monkeypatch.setattr(runner_module, "STORE_AGAIN_SECONDS", 0.01)

    async def agent(run: AgentRun) -> Outcome:
        await set_most_pages(database, 1)
        return Outcome(is_completed=True, result="x" * 1_000_000, error=None, usage=NO_USAGE)

    runner, events = make_runner(database, tmp_path, agent, control)
    with caplog.at_level(logging.WARNING, logger="beray.tasks"):
        running = asyncio.create_task(runner.run_task(1, 1))
        await asyncio.to_thread(wait_until, lambda: "could not be stored" in caplog.text, what="a try that failed")
        assert not running.done()
        await set_most_pages(database, 1_000_000)
        await asyncio.wait_for(running, timeout=10)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["status"], len(last["result"])) == ("task.finished", "completed", 1_000_000)
    assert caplog.text.count("could not be stored") == 1


@pytest.mark.parametrize(
    ("fault", "is_stopped", "status", "code"),
    [
        (ValueError("a fault of ours"), False, "failed", "internal_error"),
        (Refused("disk_full"), False, "failed", "disk_full"),
        (Refused("disk_full"), True, "stopped", None),
        (ValueError("torn by the stop"), True, "stopped", None),
    ],
)
async def test_run_that_a_fault_ends_keeps_its_usage_and_says_why(
    database, tmp_path, control, fault, is_stopped, status, code
):
    used = {**NO_USAGE, "requests": 7}

    async def agent(run: AgentRun) -> Outcome:
        await run.emit(NewEvent("usage.updated", {"usage": used}))
        if is_stopped:
            control.stop(1)
        raise fault

    runner, events = make_runner(database, tmp_path, agent, control)
    await runner.run_task(1, 1)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["status"], last["usage"]) == ("task.finished", status, used)
    assert (last["error"] or {"code": None})["code"] == code


async def test_run_is_stopped_on_a_full_disk_by_its_owner_only(database, tmp_path, control, monkeypatch):
    """What fills the disk must be stoppable; that it was is stored once there is room."""
    monkeypatch.setattr(runner_module, "STORE_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(service_module, "STOP_ANSWER_SECONDS", 0.1)
    cut = asyncio.Event()
    works = asyncio.Event()

    async def agent(run: AgentRun) -> Outcome:
        works.set()
        try:
            return await asyncio.Future()
        finally:
            cut.set()

    runner, events = make_runner(database, tmp_path, agent, control)
    tasks = make_tasks(database, tmp_path, events, control)
    running = asyncio.create_task(runner.run_task(1, 1))
    await asyncio.wait_for(works.wait(), timeout=10)
    with monkeypatch.context() as full:
        full.setattr(database, "write", AsyncMock(side_effect=Refused("disk_full")))
        with pytest.raises(Refused) as refused:
            await tasks.stop(UserRow(2, "b@example.com", 0), 1)
        assert (refused.value.code, cut.is_set()) == ("task_not_found", False)

        answer = await tasks.stop(UserRow(1, "a@example.com", 0), 1)
        assert (answer["status"], cut.is_set()) == ("running", True)
    await asyncio.wait_for(running, timeout=10)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["status"]) == ("task.finished", "stopped")


OWNER = UserRow(1, "a@example.com", 0)


async def test_deletion_that_fails_midway_is_finished_later(database, tmp_path, control, monkeypatch, caplog):
    """The disk refuses; whoever deletes is told that it goes on, and it does."""
    tasks = make_tasks(database, tmp_path, EventLog(database, Wakeups(), lambda: AT), control)
    tasks.engine = AsyncMock(is_running=AsyncMock(return_value=False))
    work_dir = await tasks.open_work_dir(OWNER, 1)
    with monkeypatch.context() as broken:
        broken.setattr(WorkDirs, "delete", Mock(side_effect=OSError(errno.EIO, "input/output error")))
        with pytest.raises(Refused) as refused:
            await tasks.delete(OWNER, 1)

    assert refused.value.code == "task_being_deleted"
    assert "will be tried again: [Errno 5] input/output error" in caplog.text
    assert "Traceback" not in caplog.text
    assert await tasks.deletions.finish() == []
    assert await database.read(is_without_tasks)
    assert not work_dir.path.exists()


async def test_deletion_left_by_another_process_is_finished_after_5_minutes(postgres_url, tmp_path, control):
    """Until then the process that hid the task may be at work on it."""
    five_minutes = 300_000
    with seeded_database(make_url(postgres_url), 1, 2, status="completed") as database:
        hide = "UPDATE task SET deleted_at = CASE id WHEN 1 THEN :at ELSE :at + 1 END"
        await database.write(lambda connection: connection.execute(text(hide), {"at": AT - five_minutes}) and None)
        tasks = make_tasks(database, tmp_path, EventLog(database, Wakeups(), lambda: AT), control)
        tasks.engine = AsyncMock(is_running=AsyncMock(return_value=False))
        for task_id in (1, 2):
            (tmp_path / "tasks" / str(task_id)).mkdir(parents=True)

        await tasks.deletions.finish()

        async def left() -> list[int]:
            query = text("SELECT id FROM task ORDER BY id")
            return list(await database.read(lambda connection: connection.execute(query).scalars().all()))

        await until(lambda: not tasks.deletions._jobs, what="the deletions")
        assert await left() == [2]
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["2"]


async def test_task_that_fills_the_disk_can_be_deleted(database, tmp_path, control, monkeypatch):
    tasks = make_tasks(database, tmp_path, EventLog(database, Wakeups(), lambda: AT), control)
    folder = (await tasks.open_work_dir(OWNER, 1)).path
    (folder / "big").write_bytes(b"x")
    write = database.write

    async def write_while_there_is_room(query):
        if folder.exists():
            raise Refused("disk_full")
        return await write(query)

    monkeypatch.setattr(database, "write", write_while_there_is_room)
    with pytest.raises(Refused) as refused:
        await tasks.delete(UserRow(2, "b@example.com", 0), 1)
    assert refused.value.code == "task_not_found"
    assert (folder / "big").exists()

    await tasks.delete(OWNER, 1)

    assert await database.read(is_without_tasks)


def is_without_tasks(connection) -> bool:
    return connection.execute(text("SELECT count(*) FROM task")).scalar() == 0


@pytest.mark.parametrize(("interrupts", "status"), [(19, "completed"), (20, "failed")])
async def test_run_whose_process_goes_away_again_and_again_is_given_up(tmp_path, control, interrupts, status):
    """A task that takes its process with it would otherwise do so for ever."""
    ran = []

    async def agent(run: AgentRun) -> Outcome:
        ran.append(run.attempt)
        return Outcome(is_completed=True, result="done", error=None, usage=NO_USAGE)

    values = {"status": "running", "attempt": 30, "interrupts": interrupts}
    with seeded_database(tmp_path / "beray.db", 1, **values) as database:
        runner, events = make_runner(database, tmp_path, agent, control)
        await runner.run_task(1, 1)
        finished = json.loads(frame_body((await events.read_all(1))[-1]))

    assert (finished["type"], finished["status"]) == ("task.finished", status)
    assert ran == ([31] if status == "completed" else [])
    assert (finished["error"] or {}).get("code") == (None if status == "completed" else "interrupted")


async def test_run_that_needs_a_tool_this_process_has_not_fails_and_names_it(tmp_path, control):
    agent = AsyncMock()
    asked = json.dumps(["shell", "weather"])
    with seeded_database(tmp_path / "beray.db", 1, status="queued", tools=asked) as database:
        runner, events = make_runner(database, tmp_path, agent, control)
        await runner.run_task(1, 1)

        last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert agent.await_count == 0
    assert (last["status"], last["error"]["code"]) == ("failed", "tool_not_offered")
    assert "weather" in last["error"]["message"]
    assert "shell" not in last["error"]["message"]


async def test_run_that_begins_anew_has_not_been_interrupted(tmp_path, control):
    async def agent(run: AgentRun) -> Outcome:
        return Outcome(is_completed=True, result="done", error=None, usage=NO_USAGE)

    with seeded_database(tmp_path / "beray.db", 1, status="queued", attempt=30, interrupts=20) as database:
        runner, events = make_runner(database, tmp_path, agent, control)
        await runner.run_task(1, 1)
        finished = json.loads(frame_body((await events.read_all(1))[-1]))

    assert finished["status"] == "completed"


async def steal(database: Database) -> None:
    """As a process does that was frozen in its take: the next attempt begins."""
    await database.write(lambda connection: connection.execute(text("UPDATE task SET attempt = attempt + 1")) and None)


@pytest.mark.parametrize("way", ["emit", "end"])
async def test_attempt_that_was_displaced_leaves_the_run_to_be_taken_up_again(database, tmp_path, control, way):
    """If it counted as ended for the engine, nobody would run the task any more."""

    async def agent(run: AgentRun) -> Outcome:
        await steal(database)
        if way == "emit":
            await run.emit(NewEvent("text.delta", {"message_id": "m", "delta": "late"}))
        return Outcome(is_completed=True, result="done", error=None, usage=NO_USAGE)

    runner, events = make_runner(database, tmp_path, agent, control)
    with pytest.raises(Displaced):
        await runner.run_task(1, 1)

    kinds = [json.loads(frame_body(frame))["type"] for frame in await events.read_all(1)]
    assert kinds == ["task.started"]


async def test_attempt_of_a_deleted_task_is_over(database, tmp_path, control):
    async def agent(run: AgentRun) -> Outcome:
        await database.write(lambda connection: connection.execute(text("UPDATE task SET deleted_at = 1")) and None)
        return Outcome(is_completed=True, result="done", error=None, usage=NO_USAGE)

    runner, _ = make_runner(database, tmp_path, agent, control)

    await runner.run_task(1, 1)


async def test_outcome_that_cannot_be_kept_ends_the_task_all_the_same(database, tmp_path, control):
    async def agent(run: AgentRun) -> Outcome:
        return Outcome(is_completed=True, result="\ud800", error=None, usage=NO_USAGE)

    runner, events = make_runner(database, tmp_path, agent, control)
    await runner.run_task(1, 1)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["status"], last["error"]["code"]) == ("task.finished", "failed", "internal_error")


async def test_run_whose_task_was_deleted_brings_no_folder_back(database, tmp_path, control):
    """As of a worker that was frozen meanwhile."""

    async def agent(run: AgentRun) -> Outcome:
        await database.write(lambda connection: queries.delete_task(connection, 1))
        WorkDirs(tmp_path / "tasks").delete(1)
        return Outcome(is_completed=True, result="done", error=None, usage=NO_USAGE)

    runner, _ = make_runner(database, tmp_path, agent, control)
    await runner.run_task(1, 1)

    assert list((tmp_path / "tasks").iterdir()) == []


# What the user says as a run ends


async def say(database: Database, events: EventLog, content: str) -> None:
    def put(connection: Connection) -> None:
        row = queries.get_task(connection, 1, 1, is_to_change=True)
        Conversation(events, lambda: AT).add(connection, row, content)

    await database.write(put)


async def deliver(database: Database) -> None:
    query = text("UPDATE message SET delivered_at = 1")
    await database.write(lambda connection: connection.execute(query) and None)


def outcome(*, is_completed: bool, turns: int) -> Outcome:
    error = None if is_completed else {"code": "c", "message": "m", "hint": None, "retryable": False}
    return Outcome(is_completed=is_completed, result="done", error=error, usage=NO_USAGE, turns=turns)


async def test_run_is_not_completed_while_a_message_waits(database_url, tmp_path, control):
    """It came after the agent's last look: the agent is called again, and goes on at its next turn."""
    begun_at = []

    async def agent(run: AgentRun) -> Outcome:
        begun_at.append(run.first_turn)
        if len(begun_at) == 1:
            await say(database, events, "wait")
            return outcome(is_completed=True, turns=3)
        await deliver(database)
        return outcome(is_completed=True, turns=4)

    with seeded_database(database_url, 1, status="queued") as database:
        runner, events = make_runner(database, tmp_path, agent, control)
        await runner.run_task(1, 1)
        kinds = [json.loads(frame_body(frame))["type"] for frame in await events.read_all(1)]

    assert begun_at == [1, 4]
    assert kinds == ["task.started", "input.received", "task.finished"]


async def test_run_of_fixed_rules_is_completed_though_a_message_waits(database, tmp_path, control):
    """They read none: it waits for a run that has a model."""

    async def agent(run: AgentRun) -> Outcome:
        await say(database, events, "wait")
        return outcome(is_completed=True, turns=1)

    rules = Models(ModelChoice("beray:rules", "rules"))
    runner, events = make_runner(database, tmp_path, agent, control, models=rules)
    await asyncio.wait_for(runner.run_task(1, 1), timeout=10)

    assert json.loads(frame_body((await events.read_tail(1, 1))[0]))["status"] == "completed"


@pytest.mark.parametrize(("answer_seconds", "has_question"), [(600, False), (0, True), (0, False)])
async def test_second_attempt_may_ask_only_where_that_is_set_or_a_question_is_open(
    database, tmp_path, control, answer_seconds, has_question
):
    """A question that was asked before a restart without questions comes to its end."""
    offered = []

    async def agent(run: AgentRun) -> Outcome:
        offered.append("ask_user" in run.tools and run.asking is not None)
        if run.attempt == 1 and has_question:
            row = ToolCallRow("call_1", "ask_user", AT, None, None)
            await database.write(lambda connection: start_tool_call(connection, 1, 1, row))
        if run.attempt == 1:
            raise asyncio.CancelledError
        return outcome(is_completed=True, turns=1)

    built_in = TOOL_NAMES if answer_seconds else tuple(name for name in TOOL_NAMES if name != "ask_user")
    runner, _ = make_runner(
        database, tmp_path, agent, control, answer_seconds=answer_seconds, catalogue=ToolCatalogue(built_in)
    )
    with pytest.raises(asyncio.CancelledError):
        await runner.run_task(1, 1)
    await runner.run_task(1, 1)

    assert offered == [answer_seconds > 0, answer_seconds > 0 or has_question]


@pytest.mark.parametrize("tools", ['["shell", "ask_user"]', None])
async def test_task_that_may_ask_is_run_without_it_where_nobody_can_be_asked(database, tmp_path, control, tools):
    offered = []

    async def agent(run: AgentRun) -> Outcome:
        offered.append(run.tools)
        return outcome(is_completed=True, turns=1)

    await database.write(lambda connection: queries.update_task(connection, 1, tools=tools))
    catalogue = ToolCatalogue(("shell", "finish"))
    runner, _ = make_runner(database, tmp_path, agent, control, catalogue=catalogue)
    await runner.run_task(1, 1)

    assert offered == [("shell",) if tools else ("shell", "finish")]


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_run_that_is_cut_has_used_what_its_checkpoint_says(database, tmp_path, control, is_stopped):
    """With the request that was under way, whose answer nobody will ever know."""
    used = Used(requests=2, tool_calls=3, input_tokens=100, output_tokens=20, under_way=Estimate(50, 0.5))
    row = Progress(turn=2, used=used, earlier=Used(requests=1, input_tokens=7)).to_row()

    async def agent(run: AgentRun) -> Outcome:
        def save(connection: Connection) -> None:
            run.ledger.note(connection, used)
            agent_runs.save_checkpoint(connection, 1, 1, row)

        await run.emit(NewEvent("step.started", {"step": 2}), also=save)
        if is_stopped:
            control.stop(1)
            await asyncio.Future()
        raise ValueError("a fault of ours")

    runner, events = make_runner(database, tmp_path, agent, control)
    await asyncio.wait_for(runner.run_task(1, 1), timeout=10)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["usage"]["requests"], last["usage"]["tool_calls"]) == ("task.finished", 3, 3)
    assert last["usage"]["input_tokens"] is None
    sums = await database.read(lambda connection: usage.sum_of_user(connection, 1, AT // DAY_MS))
    assert (sums.requests, sums.unpriced, sums.estimated_tokens, sums.estimated_cost_usd) == (2, 1, 50, 0.5)


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_run_that_fails_or_is_stopped_ends_though_a_message_waits(database, tmp_path, control, is_stopped):
    async def agent(run: AgentRun) -> Outcome:
        await say(database, events, "wait")
        if is_stopped:
            control.stop(1)
            await asyncio.Future()
        return outcome(is_completed=False, turns=1)

    runner, events = make_runner(database, tmp_path, agent, control)
    await asyncio.wait_for(runner.run_task(1, 1), timeout=10)

    last = json.loads(frame_body((await events.read_tail(1, 1))[0]))
    assert (last["type"], last["status"]) == ("task.finished", "stopped" if is_stopped else "failed")


async def test_further_run_is_begun_with_its_message_and_the_one_before_is_over(database_url, tmp_path, control):
    """What a zombie of the run before does is refused, and is not taken for a run to be gone on with."""
    goals = []

    async def agent(run: AgentRun) -> Outcome:
        goals.append((run.run, run.attempt, run.goal))
        if run.run == 1:
            await database.write(begin_again)
            await runner.run_task(1, 2)
            await run.emit(NewEvent("text.delta", {"message_id": "m", "delta": "late"}))
        await deliver(database)
        return outcome(is_completed=True, turns=1)

    def begin_again(connection: Connection) -> None:
        queries.change_status(connection, 1, "completed")
        row = queries.get_task(connection, 1, 1, is_to_change=True)
        Conversation(events, lambda: AT).begin_again(
            connection, row, "the second goal", ModelChoice("beray:rules", "rules")
        )

    with seeded_database(database_url, 1, status="queued") as database:
        runner, events = make_runner(database, tmp_path, agent, control)
        await runner.run_task(1, 1)
        shown = [json.loads(frame_body(frame)) for frame in await events.read_all(1)]

    assert goals == [(1, 1, "g"), (2, 1, "the second goal")]
    assert [event["type"] for event in shown] == [
        "task.started",
        "input.received",
        "task.status",
        "task.started",
        "task.finished",
    ]


async def test_stop_of_the_run_before_does_not_stop_the_next(database, control):
    """Its look at the database is answered when the next run has begun here."""
    await database.write(lambda connection: queries.update_task(connection, 1, stop_requested=True))

    class Slow:
        async def read(self, query):
            found = await database.read(query)
            with contextlib.ExitStack() as late:
                begun.append(late.enter_context(control.running(1)))
                late.pop_all()
            return found

    begun: list[RunHandle] = []
    with control.running(1) as first:
        await control.stop_asked(Slow())

    assert first.stop.is_set()
    assert not begun[0].stop.is_set()


async def test_task_that_was_begun_again_is_not_purged(database, tmp_path, control):
    await database.write(lambda connection: queries.update_task(connection, 1, status="completed", finished_at=1))
    events = EventLog(database, Wakeups(), lambda: AT)
    tasks = make_tasks(database, tmp_path, events, control)
    tasks.engine = AsyncMock(is_running=AsyncMock(return_value=False), submit=Mock())
    scan = database.scan

    async def scan_and_begin_again(query):
        found = await scan(query)
        if found == [(1, 1)]:
            await tasks.send_message(OWNER, 1, "again")
        return found

    database.scan = scan_and_begin_again

    assert await tasks.deletions.purge(AT) == 0
    assert (await tasks.get(OWNER, 1)).run == 2
