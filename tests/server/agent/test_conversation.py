"""What the user says while a run works reaches its model once; a further run goes on where the last one was."""

import asyncio

import pytest
from sqlalchemy import text

from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.db import agent_runs
from beray.server.events.log import Fenced
from tests.support.agent_bench import RULES_MODEL, Crash, CrashAt
from tests.support.scripted_model import Reply, call, failure, sequence, turns

GOAL = "Do it in steps."
STEPS = turns(
    Reply(calls=[call("shell", command="echo one >> log")]),
    Reply(calls=[call("shell", command="echo two >> log")]),
    Reply(calls=[call("finish", summary="Both are done.")]),
    Reply("Three is done too."),
)


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


def said(request):
    """What the user has said in a request to the model, in order."""
    return [message["content"] for message in request["messages"] if message["role"] == "user"]


def results(request):
    """Results of tools in a request, in order."""
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


async def undelivered(bench):
    query = text("SELECT content FROM message WHERE delivered_at IS NULL ORDER BY number")
    return list(await bench.database.read(lambda connection: connection.execute(query).scalars().all()))


def saying(bench, script, **at):
    """The script, with messages that come while the model works on a request: by its number, as `at_2="text"`."""
    loop = asyncio.get_running_loop()

    def play(request, number):
        content = at.get(f"at_{number}")
        if content is not None:
            asyncio.run_coroutine_threadsafe(bench.say(content), loop).result(10)
        return script(request, number)

    return play


async def test_a_message_is_told_before_the_next_request(bench, scripted):
    server = scripted(saying(bench, STEPS, at_1="And three."))

    outcome = await bench.run(GOAL, model=model(server))

    assert said(server.requests[1]) == [GOAL]
    assert said(server.requests[2]) == [GOAL, "And three."]
    assert server.requests[2]["messages"][-1] == {"role": "user", "content": "And three."}
    assert outcome.is_completed
    assert await undelivered(bench) == []
    [received] = await bench.events("input.received")
    assert (received["question_id"], received["content"]) == (None, "And three.")


async def test_messages_before_the_first_request_come_with_the_goal(bench, scripted):
    server = scripted(turns(Reply("done")))
    await bench.say("first")
    await bench.say("second")

    await bench.run(GOAL, model=model(server))

    assert said(server.requests[0]) == [GOAL, "first", "second"]


@pytest.mark.parametrize(
    "last", [Reply("That was all."), Reply(calls=[call("finish", summary="That was all.")])], ids=["text", "finish"]
)
async def test_a_message_during_the_last_answer_is_not_lost(bench, scripted, last):
    """The answer does not know of it, so it is not the last one."""
    server = scripted(saying(bench, sequence(last, Reply("Now it is.")), at_0="Wait, one more thing."))

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "Now it is."
    assert said(server.requests[1]) == [GOAL, "Wait, one more thing."]
    assert len(server.requests) == 2
    assert await undelivered(bench) == []


@pytest.mark.parametrize(
    "last", [Reply("That was all."), Reply(calls=[call("finish", summary="That was all.")])], ids=["text", "finish"]
)
@pytest.mark.parametrize("crashes", [False, True])
async def test_a_run_whose_end_was_refused_goes_on(bench, scripted, last, crashes):
    """The message came after the last turn was stored: the runner calls again, here or in another attempt."""
    server = scripted(sequence(last, Reply("Now it is.")))
    outcome = await bench.run(GOAL, model=model(server))
    assert (outcome.result, outcome.turns) == ("That was all.", 1)
    await bench.say("Wait, one more thing.")
    if crashes:  # the takeover plays the recorded turns, is refused, and goes on
        assert (await bench.run(GOAL, model=model(server))).turns == 1

    outcome = await bench.run(GOAL, model=model(server), first_turn=outcome.turns + 1)

    assert (outcome.result, outcome.turns) == ("Now it is.", 2)
    assert said(server.requests[1])[-1] == "Wait, one more thing."
    again = await bench.run(GOAL, model=model(server))  # a takeover after that: the refused end is passed over
    assert again.result == "Now it is."
    assert len(server.requests) == 2


@pytest.mark.parametrize("fails", ["limit", "model", "empty"])
@pytest.mark.parametrize("crashes", [False, True])
async def test_a_late_message_that_can_not_be_answered_does_not_undo_the_result(bench, scripted, fails, crashes):
    """It stays in the conversation, where a further run finds it."""
    after = {"limit": Reply("never asked"), "model": failure(401), "empty": Reply("")}[fails]
    server = scripted(saying(bench, sequence(Reply("All is done."), after), at_0="Thanks!"))
    limits = RunLimits(requests=1) if fails == "limit" else RunLimits()
    if crashes:
        bench.crash = crash_before_second("step.finished")
        with pytest.raises(Crash):
            await bench.run(GOAL, model=model(server), limits=limits)
        bench.crash = None

    outcome = await bench.run(GOAL, model=model(server), limits=limits)

    assert (outcome.result, outcome.error) == ("All is done.", None)
    assert await undelivered(bench) == []
    await bench.end("completed")
    server.script = turns(Reply("ok"))
    await bench.say("And what about two?")
    await bench.run(GOAL, model=model(server))
    heard = [words for words in said(server.requests[-1]) if not words.startswith("A note of the service")]
    assert heard == [GOAL, "Thanks!", "And what about two?"]


def crash_before_second(kind):
    """Dies before the second event of this type is stored."""
    seen = []

    def crash(when, types):
        if when == "before" and kind in types:
            seen.append(kind)
            if len(seen) == 2:
                raise Crash

    return crash


async def test_a_late_message_that_was_answered_makes_the_run_fail_as_any(bench, scripted):
    """What the model has begun anew counts."""
    work = Reply(calls=[call("shell", command="echo more")])
    server = scripted(saying(bench, sequence(Reply("All is done."), work, failure(401)), at_0="Do more."))

    outcome = await bench.run(GOAL, model=model(server))

    assert (outcome.result, outcome.error["code"]) == (None, "model_auth")


CRASHES = 12


async def test_every_point_of_the_talk_is_tried(bench, scripted):
    bench.crash = CrashAt(0)
    await bench.run(GOAL, model=model(scripted(saying(bench, STEPS, at_1="And three.", at_2="And four."))))

    assert len(bench.crash.seen) == CRASHES


@pytest.mark.parametrize("number", range(1, CRASHES + 1))
async def test_messages_are_told_once_over_a_crash_anywhere(bench, scripted, number):
    server = scripted(saying(bench, STEPS, at_1="And three.", at_2="And four."))
    bench.crash = CrashAt(number)
    with pytest.raises(Crash):
        await bench.run(GOAL, model=model(server))
    bench.crash = None

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.is_completed
    received = [event["content"] for event in await bench.events("input.received")]
    assert said(server.requests[-1]) == [GOAL, *received]
    assert await undelivered(bench) == []


# Further runs


async def test_a_further_run_goes_on_with_history_folder_and_variables(bench, scripted):
    first = Reply(calls=[call("shell", command="mkdir sub; cd sub; export SEEN=yes; echo one > log")])
    server = scripted(
        sequence(first, Reply("One is done."), Reply(calls=[call("shell", command="echo $SEEN; pwd")]), Reply("Two."))
    )
    await bench.run(GOAL, model=model(server))
    await bench.end("completed")

    await bench.say("Now two.")
    outcome = await bench.run(GOAL, model=model(server))

    assert (await bench.task()).run == 2
    assert outcome.result == "Two."
    third = server.requests[2]["messages"]
    assert [message["role"] for message in third] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert (third[-2]["content"], third[-1]["content"]) == ("One is done.", "Now two.")
    assert "yes\n" in results(server.requests[3])[-1]
    assert "/sub" in results(server.requests[3])[-1]


async def test_usage_is_of_all_runs_and_limits_are_of_each(bench, scripted):
    server = scripted(sequence(Reply(calls=[call("shell", command="true")]), Reply("One."), Reply("Two.")))
    first = await bench.run(GOAL, model=model(server), limits=RunLimits(requests=2))
    await bench.end("completed")
    await bench.say("Go on.")

    second = await bench.run(GOAL, model=model(server), limits=RunLimits(requests=2))

    assert second.is_completed
    assert (first.usage["requests"], second.usage["requests"]) == (2, 3)
    assert (second.usage["tool_calls"], second.usage["input_tokens"]) == (1, 300)
    assert (await bench.events("usage.updated"))[-1]["usage"] == second.usage


async def test_a_run_after_a_failure_tells_the_goal_once(bench, scripted):
    server = scripted(sequence(failure(401), Reply("done")))
    await bench.run(GOAL, model=model(server))
    await bench.end("failed")
    await bench.say("Try again.")

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "done"
    assert said(server.requests[1]) == [GOAL, "Try again."]


async def test_a_message_that_a_failed_run_did_not_read_is_told_in_the_next(bench, scripted):
    server = scripted(saying(bench, sequence(failure(401), Reply("done")), at_0="And three."))
    await bench.run(GOAL, model=model(server))
    await bench.end("failed")
    await bench.say("Try again.")

    await bench.run(GOAL, model=model(server))

    assert said(server.requests[1]) == [GOAL, "And three.", "Try again."]
    assert await undelivered(bench) == []


async def test_a_run_after_one_that_never_began_tells_the_first_goal(bench, scripted):
    server = scripted(turns(Reply("done")))
    await bench.end("stopped")
    await bench.say("But in green.")

    await bench.run(GOAL, model=model(server))

    assert said(server.requests[0]) == ["The first goal.", "But in green."]


async def test_calls_that_a_stop_cut_short_are_told_as_such(bench, scripted):
    """One was done, one was at work, one had not begun."""
    three = Reply(
        calls=[
            call("shell", id="a", command="echo done"),
            call("shell", id="b", command="echo at work"),
            call("shell", id="c", command="echo not begun"),
        ]
    )
    server = scripted(sequence(three, Reply("I see.")))

    def die_in_second(when, types):
        started = "tool.started" in types and when == "after"
        die_in_second.count += started
        if started and die_in_second.count == 2:
            raise Crash

    die_in_second.count = 0
    bench.crash = die_in_second
    with pytest.raises(Crash):
        await bench.run(GOAL, model=model(server))
    bench.crash = None
    await bench.end("stopped")
    await bench.say("What happened?")

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "I see."
    done, at_work, not_begun = results(server.requests[1])
    assert "done" in done
    assert at_work.startswith("Interrupted: the run ended while this call was at work")
    assert not_begun.startswith("Not run")
    assert not (bench.work_dir / "log").exists()


async def test_an_attempt_of_the_run_before_is_fenced(bench, scripted):
    """Both are first attempts: only the run tells them apart."""
    server = scripted(turns(Reply("done")))
    await bench.run(GOAL, model=model(server))
    zombie = bench._emitter(bench.fence)
    await bench.end("completed")
    await bench.say("Again.")
    await bench.run(GOAL, model=model(server))
    count = len(await bench.events())

    with pytest.raises(Fenced):
        await bench.run(GOAL, model=model(server), emit=zombie, first_turn=2)

    assert len(await bench.events()) == count


async def test_background_processes_of_the_run_before_are_told_to_be_gone(bench, scripted):
    started = Reply(calls=[call("shell", command="sleep 60", background=True)])
    server = scripted(sequence(started, Reply("It runs."), Reply("I see.")))
    await bench.run(GOAL, model=model(server))
    await bench.end("completed")
    await bench.say("Is it still running?")

    await bench.run(GOAL, model=model(server))

    question, note = said(server.requests[2])[-2:]
    assert question == "Is it still running?"
    assert "bg-1 (sleep 60) is gone" in note


async def test_rules_mode_begins_anew_with_the_message_as_its_goal(bench):
    await bench.run("`echo first-words`", model=RULES_MODEL)
    await bench.end("completed")
    await bench.say("`echo second-words`")

    outcome = await bench.run("", model=RULES_MODEL)

    assert outcome.is_completed
    assert "second-words" in outcome.result
    assert "first-words" not in outcome.result
    assert await undelivered(bench) == []
    assert outcome.usage["tool_calls"] == 2


async def test_a_further_run_reads_the_records_of_open_calls_only(bench, scripted, monkeypatch):
    """Those of the others may hold many megabytes of pictures, and are in the conversation already."""
    looked = []
    find = agent_runs.find_tool_calls

    def spy(connection, task_id, run, call_ids):
        looked.append(list(call_ids))
        return find(connection, task_id, run, call_ids)

    monkeypatch.setattr(agent_runs, "find_tool_calls", spy)
    both = [call("shell", command="echo two"), call("shell", command="echo three")]
    server = scripted(sequence(Reply(calls=[call("shell", command="echo one")]), Reply(calls=both), Reply("done")))

    outcome = await bench.run(GOAL, model=model(server), limits=RunLimits(tool_calls=2))
    assert outcome.error["code"] == "budget_exceeded"
    await bench.end("failed")
    await bench.say("Go on.")
    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "done"
    assert looked == [["call_1_2_0", "call_1_2_1"]]
    one, two, three = results(server.requests[-1])
    assert ("one" in one, "two" in two) == (True, True)
    assert three.startswith("Not run")


async def test_rules_leave_what_was_said_to_a_run_with_a_model(bench, scripted):
    """A task was queued for a model and talked to; then a server without one took it."""
    await bench.say("And be quick.")

    outcome = await bench.run("`echo first-words`", model=RULES_MODEL)

    assert outcome.is_completed
    assert await undelivered(bench) == ["And be quick."]
    await bench.end("completed")
    await bench.say("Go on.")
    server = scripted(turns(Reply("done")))
    await bench.run("", model=model(server))
    assert said(server.requests[0])[-2:] == ["And be quick.", "Go on."]
    assert await undelivered(bench) == []
