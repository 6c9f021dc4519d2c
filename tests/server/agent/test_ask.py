"""The agent asks its user: the task waits, and goes on by the answer or when the time is up."""

import asyncio
import json
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.run import Asking
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, turns
from tests.support.waiting import until

GOAL = "Paint it."
QUESTION = call("ask_user", question="Which colour?", choices=["red", "green"])
ASKS = turns(Reply(calls=[QUESTION]), Reply("Painted."))


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


def asking(bench, seconds=600):
    return Asking(seconds, lambda: bench.log.watching(1))


def result(server):
    """What the model was told of its first call."""
    return next(message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool")


async def begin(bench, server, **changes):
    """The run, waiting for an answer."""
    changes = {"asking": asking(bench), **changes}
    running = asyncio.create_task(bench.run(GOAL, model=model(server), **changes))
    await until(lambda: is_waiting(bench), what="a task that waits")
    return running


async def is_waiting(bench):
    return (await bench.task()).status == "waiting"


async def end(running):
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def statuses(bench):
    return [event["status"] for event in await bench.events("task.status")]


async def age(bench, seconds):
    """Let the call have begun longer ago."""
    query = text("UPDATE tool_call SET started_at = started_at - :ms")
    await bench.database.write(lambda connection: connection.execute(query, {"ms": seconds * 1000}) and None)


async def test_the_answer_is_the_result_of_the_call(bench, scripted):
    server = scripted(ASKS)
    running = await begin(bench, server)

    question = json.loads((await bench.task()).question)
    await bench.say("Green, please.")
    outcome = await running

    assert question == {"question_id": "call_1_1_0", "question": "Which colour?", "choices": ["red", "green"]}
    assert outcome.result == "Painted."
    assert result(server) == "The user answers:\nGreen, please."
    assert ((await bench.task()).status, (await bench.task()).question) == ("running", None)
    seen = [event["type"] for event in await bench.events()]
    at = seen.index("tool.started")
    assert seen[at : at + 6] == [
        "tool.started",
        "input.requested",
        "task.status",
        "input.received",
        "task.status",
        "tool.finished",
    ]
    assert await statuses(bench) == ["waiting", "running"]
    [received] = await bench.events("input.received")
    assert (received["question_id"], received["content"]) == ("call_1_1_0", "Green, please.")


async def test_control_characters_in_a_question_are_replaced(bench, scripted):
    """A choice is sent back as the answer, which may hold no NUL; a question must not paint over the screen."""
    asks = call("ask_user", question="Which\0?\n\x1b[2J", choices=["a\0b", "c\r\n d", "\x85", " ", "c d"])
    running = await begin(bench, scripted(turns(Reply(calls=[asks]), Reply("Painted."))))

    question = json.loads((await bench.task()).question)
    await end(running)

    assert question["question"] == "Which\ufffd?\n\ufffd[2J"
    assert question["choices"] == ["a\ufffdb", "c\ufffd d", "\ufffd", "c d"]
    [requested] = await bench.events("input.requested")
    assert requested["choices"] == question["choices"]


async def test_nobody_answers_in_time(bench, scripted):
    server = scripted(ASKS)

    outcome = await bench.run(GOAL, model=model(server), asking=asking(bench, seconds=1))

    assert outcome.result == "Painted."
    assert result(server).startswith("Nobody answered within 1 s.")
    assert ((await bench.task()).status, (await bench.task()).question) == ("running", None)
    assert await statuses(bench) == ["waiting", "running"]


async def test_the_wait_does_not_use_up_the_runs_time(bench, scripted):
    """It waits longer than the whole run may take, and the turn after it still has its time."""
    outcome = await bench.run(
        GOAL, model=model(scripted(ASKS)), asking=asking(bench, seconds=3), limits=RunLimits(wall_seconds=2)
    )

    assert outcome.result == "Painted."


async def test_two_questions_have_an_answer_each(bench, scripted):
    again = call("ask_user", id="b", question="How big?")
    server = scripted(turns(Reply(calls=[QUESTION, again]), Reply("Painted.")))
    running = await begin(bench, server)
    await bench.say("Green")
    await until(lambda: is_asked(bench, "How big?"), what="the second question")
    await bench.say("Big")
    await running

    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told == ["The user answers:\nGreen", "The user answers:\nBig"]


async def is_asked(bench, question):
    asked = (await bench.task()).question
    return asked is not None and json.loads(asked)["question"] == question


async def test_a_message_sent_before_the_question_takes_its_place(bench, scripted):
    """It may well be the answer; were it not told now, the model would wait for another."""
    loop = asyncio.get_running_loop()

    def script(request, number):
        if number == 0:
            asyncio.run_coroutine_threadsafe(bench.say("By the way: green."), loop).result(10)
        return ASKS(request, number)

    server = scripted(script)

    await bench.run(GOAL, model=model(server), asking=asking(bench))

    assert result(server).startswith("Not answered: the user had sent a message")
    assert server.requests[-1]["messages"][-1]["content"] == "By the way: green."


@pytest.mark.parametrize("is_answered", [True, False])
async def test_who_takes_over_waits_on_for_the_same_question(bench, scripted, is_answered):
    server = scripted(ASKS)
    await end(await begin(bench, server))

    running = await begin(bench, server)
    if is_answered:
        await bench.say("Green")
        outcome = await running
        assert result(server) == "The user answers:\nGreen"
    else:
        await end(running)
        await age(bench, seconds=601)
        outcome = await bench.run(GOAL, model=model(server), asking=asking(bench))
        assert result(server).startswith("Nobody answered")

    assert outcome.result == "Painted."
    assert len(await bench.events("input.requested")) == len(await bench.events("tool.started")) == 1
    assert len(await bench.events("tool.finished")) == 1


async def test_an_answer_given_while_no_process_ran_is_taken(bench, scripted):
    server = scripted(ASKS)
    await end(await begin(bench, server))
    await bench.say("Green")

    await bench.run(GOAL, model=model(server), asking=asking(bench, seconds=0))

    assert result(server) == "The user answers:\nGreen"


async def test_an_answer_that_a_stopped_run_did_not_read_is_told_in_the_next(bench, scripted):
    server = scripted(ASKS)
    await end(await begin(bench, server))
    await bench.say("Green")
    await bench.end("stopped")
    await bench.say("Go on.")

    await bench.run(GOAL, model=model(server), asking=asking(bench))

    assert result(server) == "The user answers:\nGreen"


CRASHES = 6


async def test_every_point_of_the_question_is_tried(bench, scripted):
    server = scripted(ASKS)
    bench.crash = CrashAt(0)
    running = await begin(bench, server)
    await bench.say("Green")
    await running

    assert len(bench.crash.seen) == CRASHES


@pytest.mark.parametrize("number", range(1, CRASHES + 1))
async def test_a_crash_anywhere_asks_once_and_takes_the_answer_once(bench, scripted, number):
    server = scripted(ASKS)

    @contextmanager
    def watching_and_answering():
        with bench.log.watching(1) as changed:
            answering.append(asyncio.create_task(answer_once()))
            yield changed

    answering = []

    async def answer_once():
        if await is_waiting(bench):
            await bench.say("Green")

    bench.crash = CrashAt(number)
    with pytest.raises(Crash):
        await bench.run(GOAL, model=model(server), asking=Asking(600, watching_and_answering))
    bench.crash = None

    outcome = await bench.run(GOAL, model=model(server), asking=Asking(600, watching_and_answering))

    await asyncio.gather(*answering)
    assert outcome.result == "Painted."
    assert result(server) == "The user answers:\nGreen"
    assert len(await bench.events("input.requested")) == len(await bench.events("input.received")) == 1


async def test_without_somebody_to_ask_the_tool_is_not_there(bench, scripted):
    server = scripted(turns(Reply("done")))

    await bench.run(GOAL, model=model(server))

    assert "ask_user" not in [tool["function"]["name"] for tool in server.requests[0]["tools"]]
