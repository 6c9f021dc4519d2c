"""A task in five steps whose every tool call leaves a trace, and what must be true of it wherever its process died."""

from pathlib import Path
from typing import Any

from beray.server.agent.run import Outcome
from tests.support.agent_bench import Bench
from tests.support.scripted_model import Reply, ScriptedModel, call, results_of, turns
from tests.support.story import Event, assert_true_story, texts_of

GOAL = "Do it in steps."
STEPS = 5
CALLS = 6
STORY = turns(
    Reply("I start.", calls=[call("shell", command="echo first >> log; export SEEN=yes; mkdir -p sub; cd sub")]),
    Reply(
        calls=[
            call("write_file", id="a", path="made.txt", content="made\n"),
            call("shell", id="b", command="pwd; echo second-$SEEN >> ~/log"),
        ]
    ),
    Reply("Now the rest.", calls=[call("python", code="import os; os.system('echo third >> ~/log')")]),
    Reply(calls=[call("edit_file", path="given.txt", old="broken", new="mended")]),
    Reply(calls=[call("finish", summary="All done.")]),
)
FINISH = f"call_1_{STEPS}_0"
TRACES = {"call_1_1_0": "first", "call_1_2_1": "second-yes", "call_1_3_0": "third"}


def give_files(bench: Bench) -> None:
    """What the user has uploaded before the task starts."""
    (bench.work_dir / "given.txt").write_text("broken\n")


def assert_nothing_was_repeated(bench: Bench, outcome: Outcome, events: list[Event], server: ScriptedModel) -> None:
    """Two attempts have done the task: no finished call ran again, an interrupted one was told, usage went on."""
    assert_true_story(events)
    assert outcome.is_completed
    assert outcome.result == "All done."
    assert texts_of(events) == ["I start.", "Now the rest."]
    interrupted = _interrupted_calls(events, server)
    _assert_traces(bench.work_dir, interrupted)
    started = [event for event in events if event["type"] == "tool.started"]
    is_finish_repeated = interrupted == [FINISH]  # the model asks for the end once more
    assert outcome.usage is not None
    assert outcome.usage["tool_calls"] == len(started) == CALLS + is_finish_repeated
    _assert_requests(outcome, answers=STEPS + is_finish_repeated, made=len(server.requests))
    assert len(server.requests) <= STEPS + 1, "at most the one answer that was under way is paid for twice"


def _interrupted_calls(events: list[Event], server: ScriptedModel) -> list[str]:
    """The call that was under way, if any, of which the model has been told once."""
    failed = [event["call_id"] for event in events if event["type"] == "tool.finished" and not event["ok"]]
    last = server.requests[-1]
    told = [result for result in results_of(last) if result.startswith("Interrupted") and "unknown" in result]
    assert len(told) == len(failed) <= 1
    return failed


def _assert_traces(work_dir: Path, interrupted: list[str]) -> None:
    """A call that finished left its trace once; one that was interrupted once or not at all."""
    log = work_dir / "log"
    lines = log.read_text().split() if log.exists() else []
    assert len(lines) == len(set(lines))
    expected = dict(TRACES)
    if interrupted == ["call_1_1_0"]:  # what it had exported went with it
        expected["call_1_2_1"] = "second-"
    for call_id, trace in expected.items():
        assert trace in lines or call_id in interrupted
    assert (work_dir / "made.txt").exists() or interrupted == ["call_1_2_0"]
    assert (work_dir / "given.txt").read_text() == "mended\n" or interrupted == ["call_1_4_0"]


def _assert_requests(outcome: Outcome, *, answers: int, made: int) -> None:
    """Each that was made is counted, and what the one took whose answer was lost is not known."""
    usage: dict[str, Any] = dict(outcome.usage or {})
    lost = usage["requests"] - answers
    assert lost in {0, 1}
    assert usage["requests"] - made in {0, lost}, "the lost one may not have been sent yet"
    tokens = (100 * answers, 20 * answers) if lost == 0 else (None, None)
    assert (usage["input_tokens"], usage["output_tokens"]) == tokens
