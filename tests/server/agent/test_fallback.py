"""When a run's model has failed for good, the next one takes over, and that is said."""

import threading

import pytest
from sqlalchemy import select

from beray.server.agent import loop
from beray.server.agent.models.choice import ModelChoice
from beray.server.db import tables
from tests.support.agent_bench import Crash
from tests.support.scripted_model import HELLO, Reply, call, failure, sequence, turns

GOAL = "Write a program that greets."
KEPT_DOWN = failure(503, "overloaded", Retry_After="0")


def choice(server, name="first"):
    return ModelChoice(f"openai:{name}", "model", base_url=server.base_url, api_key="key", is_own_url=True)


def dying_after_announcement(when, types):
    if when == "after" and "model.fallback" in types:
        raise Crash(when, types)


async def model_of(bench):
    row = await bench.database.read(lambda connection: connection.execute(select(tables.task.c.model)).one())
    return row.model


@pytest.mark.parametrize(
    ("reply", "code", "requests"),
    [
        (failure(401, "no such key"), "model_auth", 1),
        (failure(429, "quota", code="insufficient_quota"), "model_quota", 1),
        (failure(404, "no such model"), "model_not_found", 1),
        (failure(429, "slow down", Retry_After="0"), "model_rate_limited", 5),
        (KEPT_DOWN, "model_unavailable", 5),
        (Reply("cut", cuts_after=1), "model_unreachable", 5),
        (Reply("garbled", garbles_after=1), "model_error", 5),
    ],
)
async def test_a_model_that_failed_for_good_is_followed_by_the_next(bench, scripted, reply, code, requests):
    first, second = scripted(sequence(reply)), scripted(HELLO)

    outcome = await bench.run(GOAL, model=choice(first), fallback=(choice(second, "second"),))

    assert outcome.result == "hello.py prints hello world."
    assert (len(first.requests), len(second.requests)) == (requests, 3)
    fallback = await bench.events("model.fallback")
    assert [(event["from"], event["to"], event["code"]) for event in fallback] == [
        ("openai:first", "openai:second", code)
    ]
    status = await bench.events("task.status")
    assert [(event["model"], event["model_kind"], event["status"]) for event in status] == [
        ("openai:second", "model", "running")
    ]
    assert status[0]["seq"] == fallback[0]["seq"] + 1
    assert await model_of(bench) == "openai:second"
    assert outcome.usage["requests"] == requests + 3, "those of the first are counted too"


async def test_one_that_fails_in_the_middle_leaves_the_conversation_to_the_next(bench, scripted):
    """What the first has done is not done again, and the second stays for the rest of the run."""
    calls = [call("shell", command="echo once >> log")]
    first = scripted(sequence(Reply("I begin.", calls=calls), failure(401)))
    second = scripted(turns(Reply("never"), Reply(calls=[call("shell", command="cat log")]), Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(first), fallback=(choice(second, "second"),))

    assert outcome.result == "Done."
    assert len(second.requests) == 2
    assert [message["role"] for message in second.requests[0]["messages"]] == ["system", "user", "assistant", "tool"]
    assert (bench.work_dir / "log").read_text() == "once\n"


async def test_text_of_the_failed_model_is_taken_back(bench, scripted):
    shown_at_once = "Wrong words. " * 200
    first = scripted(sequence(Reply([shown_at_once, "never"], cuts_after=2)))
    second = scripted(sequence(Reply("right")))

    await bench.run(GOAL, model=choice(first), fallback=(choice(second, "second"),))

    done = await bench.events("text.done")
    assert [event["text"] for event in done] == ["right"]
    reset = {event["message_id"] for event in await bench.events("text.reset")}
    assert reset == {event["message_id"] for event in await bench.events("text.delta")} - {done[0]["message_id"]}


async def test_the_chain_is_gone_through_in_order_and_each_once(bench, scripted):
    servers = [scripted(sequence(failure(401))) for _ in range(3)]
    first, second, third = (choice(server, name) for server, name in zip(servers, "abc", strict=True))

    outcome = await bench.run(GOAL, model=first, fallback=(second, first, third))

    assert outcome.error["code"] == "model_auth"
    assert "openai:c" in outcome.error["message"]
    assert [len(server.requests) for server in servers] == [1, 1, 1]
    assert [event["to"] for event in await bench.events("model.fallback")] == ["openai:b", "openai:c"]


@pytest.mark.parametrize(
    "reply",
    [
        failure(400, "too long", code="context_length_exceeded"),
        failure(400, "strange"),
        Reply(finish_reason="content_filter"),
        Reply(finish_reason="length"),
    ],
)
async def test_what_the_next_would_meet_too_ends_the_run(bench, scripted, reply):
    first, second = scripted(sequence(reply)), scripted(HELLO)

    outcome = await bench.run(GOAL, model=choice(first), fallback=(choice(second, "second"),))

    assert not outcome.is_completed
    assert second.requests == []
    assert await bench.events("model.fallback") == []


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_takeover_stays_with_the_model_that_took_over(bench, scripted, number):
    """Whether the process dies before or after the change is stored: what was announced counts.

    Who takes over is given the task's model, which has changed with the announcement.
    """
    first, second = scripted(sequence(failure(401))), scripted(HELLO)
    known = {each.name: each for each in (choice(first), choice(second, "second"))}
    fallback = (known["openai:second"],)
    since: list[str] = []

    def crash(when, types):
        if since or "model.fallback" in types:
            since.append(when)
        if len(since) == number:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run(GOAL, model=known["openai:first"], fallback=fallback)
    bench.crash = None
    is_announced = bool(await bench.events("model.fallback"))

    taken = known.get(await model_of(bench), known["openai:first"])  # before the announcement it is the bench's
    outcome = await bench.run(GOAL, model=taken, fallback=fallback)

    assert outcome.is_completed
    assert len(await bench.events("model.fallback")) == 1
    assert len(first.requests) == (1 if is_announced else 2)


async def test_a_takeover_loads_the_library_of_whoever_took_over_in_a_thread(bench, scripted, monkeypatch):
    """The event loop would stand still for as long as that takes."""
    first, second = choice(scripted(sequence(failure(401)))), choice(scripted(HELLO))
    fallback = (ModelChoice("zhipu:second", "model", base_url=second.base_url, api_key="key", is_own_url=True),)
    make, threads = loop._make_at_once, []

    def spy(run, progress):
        threads.append(threading.current_thread())
        return make(run, progress)

    monkeypatch.setattr(loop, "_make_at_once", spy)
    monkeypatch.setattr(loop, "_loaded", {"openai"})
    bench.crash = dying_after_announcement
    with pytest.raises(Crash):
        await bench.run(GOAL, model=first, fallback=fallback)
    bench.crash = None

    outcome = await bench.run(GOAL, model=first, fallback=fallback)

    assert outcome.is_completed
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
    assert loop._loaded == {"openai", "zhipu"}
