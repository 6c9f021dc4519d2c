"""Commands in the background: how a model starts, watches and stops them, and that none outlives its run."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from beray.server.agent import background as processes
from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.faults import MOST_TRIES
from beray.server.agent.prompts import system_prompt
from beray.server.agent.tools import TOOL_NAMES, output
from beray.server.agent.tools import background as tool
from beray.server.events.log import Fenced
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, failure, turns
from tests.support.waiting import begun, until, wait_until

LOOP = "while [ ! -e go ]; do sleep 0.02; done"


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    """A start is not watched, but where a test wants it to be."""
    monkeypatch.setattr(tool, "START_SECONDS", 0.0)


def start(command, **args):
    return call("shell", command=command, background=True, **args)


def look(action, id=""):
    return call("background", raw=json.dumps({"action": action, "id": id}), id="look")


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


@pytest.fixture
def use(bench, scripted):
    """Let a model make these calls, one an answer, and wait for what stands between them.

    Returns what it was told of each call, and all notes it was given.
    """

    async def run(*acts, **changes):
        waits, calls = {}, []
        for act in acts:
            if callable(act):
                waits[len(calls)] = act
            else:
                calls.append(act)
        played = turns(*[Reply(calls=[made]) for made in calls], Reply("done"))

        def script(request, number):
            if number in waits:
                wait_until(waits[number], what=f"what precedes call {number}")
            return played(request, number)

        server = scripted(script)
        outcome = await bench.run("go", model=model(server), **changes)
        assert outcome.result == "done"
        return told(server), notes(server)

    return run


def told(server):
    return [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]


def notes(server):
    """What stands in user messages after the goal: news of the service."""
    users = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "user"]
    return [line for text in users[1:] for line in str(text).splitlines()[1:]]


def logged(bench, content, call_id="call_1_1_0"):
    """Whether this has come to the log of a call, and so to the model's tail."""
    path = bench.root / "output" / f"{call_id}.log"
    return lambda: path.exists() and content in path.read_bytes()


async def test_a_background_command_runs_beside_the_next_calls_and_its_end_is_told_once(bench, use):
    answers, news = await use(
        call("shell", command="mkdir d; cd d; export A=1"),
        start(f"echo listening $A; echo oops >&2; {LOOP}; exit 3"),
        logged(bench, b"oops", "call_1_2_0"),
        look("output", "bg-1"),
        look("list"),
        call("shell", command="basename $PWD; touch go"),
        lambda: not bench.sandbox.running,
        look("output", "bg-1"),
        look("list"),
    )

    assert answers[1].startswith("running in the background as bg-1.")
    assert answers[2].startswith("bg-1: running, ")
    assert "listening 1\n" in answers[2]
    assert "oops\n" in answers[2]
    assert answers[3].startswith("bg-1: running, ")
    assert "echo listening $A" in answers[3]
    assert "d\n" in answers[4]
    assert answers[5].startswith("bg-1: exit code 3, ")
    assert "listening 1\n" in answers[5]
    assert answers[6].startswith("bg-1: exit code 3, ")
    [line] = news
    assert line.startswith("bg-1 (echo listening $A")
    assert "has ended: exit code 3" in line


async def test_people_see_what_the_model_looks_at(bench, use):
    await use(start(f"echo listening; {LOOP}"), logged(bench, b"listening"), look("output", "bg-1"))

    started, looked = await bench.events("tool.finished")
    assert (started["ok"], started["exit_code"]) == (True, None)
    assert started["summary"] == "running in the background as bg-1"
    assert looked["summary"] == "bg-1 has printed 10 bytes"
    shown = [(event["call_id"], event["delta"]) for event in await bench.events("tool.output")]
    assert ("call_1_2_0", "listening\n") in shown
    titles = [event["title"] for event in await bench.events("tool.started")]
    assert titles == [f"shell echo listening; {LOOP}", "background output bg-1"]


@pytest.mark.parametrize(("command", "code"), [("echo address in use; exit 3", 3), ("echo address in use", 0)])
async def test_a_command_that_ends_at_once_is_told_as_if_it_had_run_in_the_foreground(
    bench, use, monkeypatch, command, code
):
    monkeypatch.setattr(tool, "START_SECONDS", 20.0)

    answers, news = await use(start(command), look("list"))

    assert answers[0].startswith(f"exit code {code} ")
    assert "does not run in the background" in answers[0]
    assert answers[0].endswith("address in use\n")
    assert answers[1].startswith(f"bg-1: exit code {code}")
    assert news == []
    finished = (await bench.events("tool.finished"))[0]
    assert (finished["ok"], finished["exit_code"]) == (code == 0, code)
    assert [event["delta"] for event in await bench.events("tool.output")] == ["address in use\n"]


async def test_a_stopped_command_is_gone_and_no_news(bench, use):
    answers, news = await use(
        start(f"echo $$; {LOOP}"), look("stop", "bg-1"), lambda: not bench.sandbox.running, look("stop", " bg-1 ")
    )

    assert answers[1].startswith("bg-1: stopped, ")
    assert answers[2].startswith("bg-1: stopped, ")
    assert news == []
    assert (await bench.events("tool.finished"))[1]["summary"] == "bg-1 has been ended"


async def test_no_more_than_four_run_at_a_time(bench, use):
    answers, _ = await use(*[start(LOOP)] * 5, look("stop", "bg-2"), start(LOOP))

    assert all("running in the background" in answer for answer in answers[:4])
    assert answers[4].startswith("Error: 4 commands run in the background")
    assert [line[:5] for line in answers[4].splitlines()[1:]] == ["bg-1:", "bg-2:", "bg-3:", "bg-4:"]
    assert "as bg-5" in answers[6]
    assert len(bench.sandbox.started) == 5


@pytest.mark.parametrize("id", ["bg-7", "", "x" * 9000], ids=["unknown", "none", "long"])
async def test_an_unknown_id_is_told_with_those_there_are(use, id):
    answers, _ = await use(look("output", id), start(LOOP), look("stop", id))

    assert answers[0].startswith("Error: There is no background process")
    assert "None has been started" in answers[0]
    assert "bg-1: running" in answers[2]
    assert len(answers[2]) < 500


async def test_it_may_take_what_is_left_of_the_runs_time_and_no_more(bench, use):
    await use(start(LOOP, timeout=1), call("shell", command="true"), start(LOOP), limits=RunLimits(wall_seconds=500))

    first, foreground, second = [spec.limits.wall_seconds for spec in bench.sandbox.started]
    assert 300 < second < first <= 500
    assert foreground == 120


async def test_a_loud_command_never_waits_is_capped_on_disk_and_cut_for_the_model(bench, use, monkeypatch):
    monkeypatch.setattr(output, "LOG_BYTES", 100_000)
    log = bench.root / "output" / "call_1_1_0.log"

    answers, _ = await use(
        start(f"echo begun; yes | head -c 3000000; touch through; {LOOP}"),
        lambda: (bench.work_dir / "through").exists(),
        look("output", "bg-1"),
    )

    assert log.stat().st_size == 100_000
    assert len(answers[1].encode()) < processes.OUTPUT_BYTES + 500
    assert "begun\ny\n" in answers[1]
    assert "start it with its output in a file of the work_dir" in answers[1]
    assert (await bench.events("tool.finished"))[1]["truncated"] is True


async def test_output_of_the_ended_is_kept_for_the_latest_only(use, monkeypatch):
    monkeypatch.setattr(tool, "START_SECONDS", 20.0)
    monkeypatch.setattr(processes, "MOST_ENDED", 2)

    answers, _ = await use(*[start("true")] * 4, look("list"))

    assert [line[:5] for line in answers[4].splitlines()] == ["bg-3:", "bg-4:"]


async def test_a_task_without_the_tool_background_runs_nothing_there(bench, use):
    answers, _ = await use(start("touch made"), tools=("shell",))

    assert answers[0].startswith("Error: This task may not use the tool background.")
    assert bench.sandbox.started == []


def test_only_who_has_the_tool_is_told_of_background_commands():
    assert "background=true" in system_prompt(TOOL_NAMES)
    assert "background" not in system_prompt([name for name in TOOL_NAMES if name != "background"])


async def test_a_command_that_cannot_start_leaves_nothing_behind(bench, use, monkeypatch):
    async def refuse(spec):
        raise tool.ToolError("The command could not be started: no.")

    monkeypatch.setattr(tool, "start_process", lambda box, spec: refuse(spec))

    answers, news = await use(start(LOOP), look("list"))

    assert answers == ["Error: The command could not be started: no.", "Nothing runs in the background."]
    assert news == []


# ---- the ends of a run

ENDS = {
    "completed": ([Reply("done")], {}, None),
    "finished": ([Reply(calls=[call("finish", summary="done")])], {}, None),
    "failed": ([failure(401, "bad key")], {}, "model_auth"),
    "unavailable": ([failure(503, "later")] * MOST_TRIES, {}, "model_unavailable"),
    "too many calls": ([Reply(calls=[call("shell", command="true")])], {"tool_calls": 1}, "budget_exceeded"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_none_outlives_its_run(bench, scripted, end):
    replies, limits, code = ENDS[end]
    server = scripted(turns(Reply(calls=[start(LOOP)]), *replies))

    outcome = await bench.run("go", model=model(server), limits=RunLimits(**limits))

    assert (outcome.error or {"code": None})["code"] == code
    assert len(bench.sandbox.started) >= 1
    assert bench.sandbox.running == set()


async def test_none_outlives_the_time_of_its_run(bench, scripted):
    limits = SimpleNamespace(**vars(RunLimits()))

    def script(request, number):
        if number == 1:
            limits.wall_seconds = 0  # used up by the time of the next turn
        return played(request, number)

    played = turns(Reply(calls=[start(LOOP)]), Reply(calls=[look("list")]), Reply("too late"))

    outcome = await bench.run("go", model=model(scripted(script)), limits=limits)

    assert outcome.error["code"] == "budget_exceeded"
    assert len(bench.sandbox.started) == 1
    assert bench.sandbox.running == set()


@pytest.mark.parametrize("when", ["while it starts", "beside a command"])
async def test_none_outlives_a_stop(bench, scripted, monkeypatch, when):
    if when == "while it starts":
        monkeypatch.setattr(tool, "START_SECONDS", 60.0)
    server = scripted(turns(Reply(calls=[start(LOOP)]), Reply(calls=[call("shell", command="touch here; " + LOOP)])))
    [running] = await begun(bench.run("go", model=model(server)))
    expected = 1 if when == "while it starts" else 2
    await until(lambda: len(bench.sandbox.running) == expected, what="what is to be stopped")

    running.cancel()
    await asyncio.wait({running})

    assert running.cancelled()
    assert bench.sandbox.running == set()


async def test_none_outlives_an_attempt_that_has_lost_its_run(bench, scripted):
    def script(request, number):
        if number == 1:
            bench.crash = fence
        return played(request, number)

    def fence(when, types):
        raise Fenced("another attempt has begun")

    played = turns(Reply(calls=[start(LOOP)]), Reply(calls=[call("shell", command=LOOP)]))

    with pytest.raises(Fenced):
        await bench.run("go", model=model(scripted(script)))

    assert len(bench.sandbox.started) == 1
    assert bench.sandbox.running == set()


async def test_one_that_cannot_be_killed_is_told_in_the_log_and_the_others_end(bench, scripted, monkeypatch, caplog):
    stuck = []

    async def start_stuck(box, spec):
        process = await box.run.sandbox.start(spec)
        if not stuck:
            stuck.append(process.kill)
            process.kill = fail
        return process

    async def fail():
        raise OSError("its processes live on")

    monkeypatch.setattr(tool, "start_process", start_stuck)
    server = scripted(turns(Reply(calls=[start(LOOP)]), Reply(calls=[start(LOOP)]), Reply("done")))

    outcome = await bench.run("go", model=model(server))

    assert outcome.result == "done"
    assert len(bench.sandbox.running) == 1
    assert "a background process could not be ended" in caplog.text
    await stuck[0]()


class Stubborn:
    """A process that prints nothing and dies some time after it was killed."""

    def __init__(self):
        self.kills = 0
        self.dies = asyncio.Event()

    async def read(self):
        await asyncio.Event().wait()

    async def kill(self):
        self.kills += 1
        await self.dies.wait()


async def test_who_stops_it_a_second_time_waits_for_its_death_too(tmp_path):
    """As when the user stops the task while the model's own stop is under way."""
    stubborn = Stubborn()
    log = output.OutputLog(str(tmp_path), "call")
    process = processes.BackgroundProcess(stubborn, id="bg-1", title="t", output_log=log)
    await until(lambda: process.is_alive)
    first = asyncio.create_task(process.stop())
    await until(lambda: stubborn.kills)

    [second] = await begun(process.stop())
    first.cancel()
    await asyncio.wait({first})
    assert process.is_alive
    assert not second.done()

    stubborn.dies.set()
    await second
    assert not process.is_alive
    assert stubborn.kills == 1


# ---- takeover


STORY = turns(Reply(calls=[start(LOOP, id="a"), call("write_file", id="b", path="made", content="1")]), Reply("done"))
POINTS = 8


async def test_every_point_of_the_story_is_tried(bench, scripted):
    bench.crash = CrashAt(0)
    await bench.run("go", model=model(scripted(STORY)))

    assert len(bench.crash.seen) == POINTS


@pytest.mark.parametrize("number", range(1, POINTS + 1))
async def test_whoever_takes_a_run_over_tells_the_model_what_is_gone(bench, scripted, number):
    """Once, or else the call that had started it is told as interrupted; and what never ran is started now."""
    server = scripted(STORY)
    bench.crash = CrashAt(number)
    with pytest.raises(Crash):
        await bench.run("go", model=model(server))
    bench.crash = None
    has_started = len(bench.sandbox.started) == 1
    asked = len(server.requests)

    outcome = await bench.run("go", model=model(server))

    assert outcome.result == "done"
    assert bench.sandbox.running == set()
    if len(server.requests) == asked:  # the outcome was there already
        assert number == POINTS
        return
    was_told_running = "running in the background as bg-1" in told(server)[0]
    gone = [line for line in notes(server) if line.startswith(f"bg-1 ({LOOP}) is gone: background processes end")]
    assert len(notes(server)) == len(gone) == (1 if has_started and was_told_running else 0)
    assert was_told_running or told(server)[0].startswith("Interrupted")
    assert len(bench.sandbox.started) == (1 if has_started or was_told_running else 0)


async def test_looking_at_what_is_gone_says_so_and_numbers_are_not_given_twice(bench, scripted):
    server = scripted(
        turns(
            Reply(calls=[start(LOOP, id="a"), look("list"), look("output", "bg-1"), start(LOOP, id="c")]),
            Reply("done"),
        )
    )
    bench.crash = CrashAt(5)  # the first call's end and the second one's start are recorded
    with pytest.raises(Crash):
        await bench.run("go", model=model(server))
    assert bench.crash.seen[-1] == ("after", ("tool.finished", "tool.started"))
    bench.crash = None

    await bench.run("go", model=model(server))

    assert told(server)[1].startswith("Interrupted")
    assert told(server)[2].startswith("Error: bg-1 is gone")
    assert "as bg-2" in told(server)[3]
    assert [line[:12] for line in notes(server)] == ["bg-1 (while "]


async def test_news_are_told_once_over_retries_of_a_request(bench, scripted):
    played = turns(Reply(calls=[start("exit 4")]), Reply(calls=[look("list")]), Reply("done"))

    def script(request, number):
        if number == 1:
            wait_until(lambda: not bench.sandbox.running, what="its end")
        return failure(503) if number == 2 else played(request, number)

    server = scripted(script)

    await bench.run("go", model=model(server))

    assert len(server.requests) == 4
    assert len(notes(server)) == 1
    assert json.dumps(server.requests[-1]).count("has ended: exit code 4") == 1
