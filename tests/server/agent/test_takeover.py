"""The process dies at every point where it could be told; another attempt takes the run over."""

import itertools

import pytest

from beray.server.agent.models import ModelChoice
from beray.server.events.log import Fenced
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, turns

STORY = turns(
    Reply("I start.", calls=[call("shell", command="echo one >> log; export SEEN=yes; mkdir -p sub; cd sub")]),
    Reply(
        calls=[
            call("write_file", id="a", path="made.txt", content="made\n"),
            call("shell", id="b", command="pwd; echo two-$SEEN >> ../log"),
        ]
    ),
    Reply("Now the end.", calls=[call("python", code="open('../log', 'a').write('three\\n')")]),
    Reply(calls=[call("finish", summary="All done.")]),
)
GOAL = "Do it in steps."


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


async def test_every_point_of_the_story_is_tried(bench, scripted):
    bench.crash = CrashAt(0)
    outcome = await bench.run(GOAL, model=model(scripted(STORY)))

    assert outcome.is_completed
    assert (bench.work_dir / "log").read_text() == "one\ntwo-yes\nthree\n"
    assert len(bench.crash.seen) == POINTS


POINTS = 34


@pytest.mark.parametrize("number", range(1, POINTS + 1))
async def test_a_takeover_repeats_no_tool_and_forgets_no_usage(bench, scripted, number):
    server = scripted(STORY)
    bench.crash = CrashAt(number)
    with pytest.raises(Crash):
        await bench.run(GOAL, model=model(server))
    died = bench.crash.seen[-1]
    bench.crash = None
    before = await bench.events()

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.is_completed, died
    assert outcome.result == "All done."
    events = await bench.events()
    assert events[: len(before)] == before
    calls = assert_no_call_ran_twice(bench, events)
    interrupted = assert_interrupted_calls_are_reported(events, server)
    is_finish_repeated = interrupted == ["call_1_4_0"]  # the model asks for the end once more
    assert outcome.usage["tool_calls"] == len(calls) == (6 if is_finish_repeated else 5)
    assert outcome.usage["requests"] == (5 if is_finish_repeated else 4)
    assert outcome.usage["input_tokens"] == 100 * outcome.usage["requests"]
    assert len(server.requests) <= 5  # at most the one answer that was under way is paid for twice
    assert_text_is_whole(events)


def assert_no_call_ran_twice(bench, events):
    started = [event["call_id"] for event in events if event["type"] == "tool.started"]
    finished = [event["call_id"] for event in events if event["type"] == "tool.finished"]
    assert len(started) == len(set(started))
    assert sorted(finished) == sorted(started)
    lines = (bench.work_dir / "log").read_text().split() if (bench.work_dir / "log").exists() else []
    assert len(lines) == len(set(lines))
    return started


def assert_interrupted_calls_are_reported(events, server):
    failed = [event["call_id"] for event in events if event["type"] == "tool.finished" and not event["ok"]]
    last = server.requests[-1]["messages"]
    told = [message["tool_call_id"] for message in last if "Interrupted" in str(message.get("content"))]
    assert len(failed) <= 1
    assert told == failed
    return failed


def assert_text_is_whole(events):
    """What a viewer holds at the end is what the model said: deltas not taken back make up the text that is done."""
    texts = {}
    for event in events:
        if event["type"] == "text.delta":
            texts[event["message_id"]] = texts.get(event["message_id"], "") + event["delta"]
        elif event["type"] == "text.reset":
            del texts[event["message_id"]]
        elif event["type"] == "text.done":
            assert texts[event["message_id"]] == event["text"]
    assert list(texts.values()) == ["I start.", "Now the end."]


async def test_a_dead_attempt_that_lives_on_is_fenced(bench, scripted):
    """It may not write a single event once another attempt has begun."""
    server = scripted(STORY)
    bench.attempt += 1
    emit = bench._emitter(bench.attempt)
    await bench.run(GOAL, model=model(server))
    bench.steps.clear()
    count = len(await bench.events())

    with pytest.raises(Fenced):
        await bench.run(GOAL, model=model(server), emit=emit, run=2)

    assert len(await bench.events()) == count


async def test_a_turn_played_again_after_its_end_does_nothing(bench, scripted):
    """The engine's record of a step may be lost after the step's own commit."""
    server = scripted(STORY)
    await bench.run(GOAL, model=model(server))
    count = len(await bench.events())
    bench.steps.clear()

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "All done."
    assert len(server.requests) == 4
    assert len(await bench.events()) == count


async def test_dying_again_and_again_still_ends(bench, scripted):
    server = scripted(STORY)

    for number in itertools.count():
        bench.crash = CrashAt(6)
        try:
            outcome = await bench.run(GOAL, model=model(server))
        except Crash:
            assert number < 20
            continue
        break

    assert outcome.result == "All done."
    assert outcome.usage["tool_calls"] == 5
