"""Limits of a task, of a user's day and of the server's day: checked against what is stored, and said in full."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from beray.server.agent.budget import Limits, RunLimits, limits_of, money_settings
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.prices import Price, PriceTable
from beray.server.clock import DAY_MS
from beray.server.db import usage
from beray.server.db.usage import UsedSums
from beray.server.events.log import Fenced
from beray.server.settings import SettingError, Settings
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, failure, sequence, turns
from tests.support.story import assert_true_story
from tests.support.waiting import until, wait_until

GOAL = "Work for ever."
FOR_EVER = sequence(*(Reply(calls=[call("shell", command=f"echo {number}")]) for number in range(40)))
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
PRICES = PriceTable({"openai:*": Price(input=10_000, output=100_000, cached_input=1000)})


def choice(server, **changes):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, **{"is_own_url": True, **changes})


async def spend(bench, *, user_id=1, day=NOON // DAY_MS, task_id=77, **used):
    """Another task of the user, or of another one, has used this."""
    await bench.database.write(
        lambda connection: usage.add_used(connection, task_id=task_id, user_id=user_id, day=day, used=UsedSums(**used))
    )


async def stored(bench, day=NOON // DAY_MS) -> UsedSums:
    return await bench.database.read(lambda connection: usage.sum_of_user(connection, 1, day))


@pytest.mark.parametrize(
    ("limits", "used", "allowed", "setting"),
    [
        (RunLimits(requests=3), 3, 3, "BERAY_MAX_REQUESTS"),
        (RunLimits(tool_calls=3), 3, 3, "BERAY_MAX_TOOL_CALLS"),
        (RunLimits(tokens=250), 360, 250, "BERAY_MAX_TOKENS"),
        (RunLimits(cost_usd=5), 6, 5, "BERAY_MAX_COST_USD"),
    ],
)
async def test_each_limit_of_a_task_ends_it_and_says_which_how_far_and_how_to_raise_it(
    bench, scripted, limits, used, allowed, setting
):
    server = scripted(FOR_EVER)

    outcome = await bench.run(GOAL, model=choice(server), limits=limits, prices=PRICES)

    error = outcome.error
    assert (error["code"], error["retryable"]) == ("budget_exceeded", False)
    assert (error["budget"]["used"], error["budget"]["allowed"]) == (pytest.approx(used), allowed)
    assert (error["budget"]["scope"], error["budget"]["setting"]) == ("task", setting)
    assert setting in error["hint"]
    assert f"({error['budget']['limit']})" in error["message"]
    assert (bench.work_dir).is_dir()


@pytest.mark.parametrize("scope", ["user_day", "server_day"])
@pytest.mark.parametrize(
    ("limit", "spent"),
    [
        ("requests", {"requests": 8}),
        ("tool_calls", {"tool_calls": 9}),
        ("tokens", {"input_tokens": 700, "output_tokens": 60}),
        ("wall_seconds", {"elapsed_ms": 60_000}),
        ("cost_usd", {"cost_usd": 8.5}),
    ],
)
async def test_what_other_tasks_used_today_counts_for_the_days_limits(bench, scripted, scope, limit, spent):
    """Two answers cost 2 requests, 2 calls, 240 tokens and 4 dollars here; each limit lets that pass, and no more."""
    bench.clock = lambda: NOON
    await spend(bench, **spent)
    most = {"requests": 10, "tool_calls": 11, "tokens": 1000, "wall_seconds": 60, "cost_usd": 12}[limit]
    days = RunLimits(**{**dict.fromkeys(vars(RunLimits())), limit: most})
    server = scripted(FOR_EVER)

    outcome = await bench.run(GOAL, model=choice(server), limits=Limits(**{scope: days}), prices=PRICES)

    error = outcome.error
    assert (error["code"], error["retryable"]) == ("budget_exceeded", True)
    assert (error["budget"]["limit"], error["budget"]["scope"]) == (limit, scope)
    assert error["budget"]["used"] >= most
    suffix = "_PER_USER_DAY" if scope == "user_day" else "_PER_DAY"
    assert error["budget"]["setting"].endswith(suffix)
    assert error["budget"]["setting"] in error["hint"]
    asked = {"wall_seconds": 0, "tool_calls": 3}.get(limit, 2)
    assert len(server.requests) == asked, "not one request more than the limit allows"


@pytest.mark.parametrize("limits", [RunLimits(tokens=50_000), RunLimits(cost_usd=100)], ids=["tokens", "money"])
async def test_an_answer_without_calls_counts_for_the_day_before_the_next_request(bench, scripted, limits):
    """What it took is stored with the next turn's beginning only."""
    bench.clock = lambda: NOON
    server = scripted(sequence(Reply("", usage=(100_000, 20)), Reply("Done.")))
    days = replace(UNLIMITED, tokens=limits.tokens if limits.cost_usd is None else None, cost_usd=limits.cost_usd)

    outcome = await bench.run(GOAL, model=choice(server), limits=Limits(UNLIMITED, user_day=days), prices=PRICES)

    assert outcome.error["budget"]["scope"] == "user_day"
    assert len(server.requests) == 1
    assert (await stored(bench)).input_tokens == 100_000, "counted once"


async def test_another_users_use_and_another_day_count_not_for_the_user(bench, scripted):
    bench.clock = lambda: NOON
    await spend(bench, requests=100, day=NOON // DAY_MS - 1)
    limits = Limits(user_day=RunLimits(requests=1))

    outcome = await bench.run(GOAL, model=choice(scripted(turns(Reply("Done.")))), limits=limits)

    assert outcome.is_completed


async def test_use_is_counted_once_over_crashes(bench, scripted):
    """Whatever point the process dies at, the day holds just what the run says that it used."""
    script = turns(
        Reply(calls=[call("shell", command="echo one")]),
        Reply(calls=[call("shell", command="echo two")], cached=40),
        Reply("Done."),
    )
    bench.clock = lambda: NOON
    servers = []
    for number in range(1, 30):
        bench.crash = CrashAt(number)
        servers.append(scripted(script))
        try:
            outcome = await bench.run(GOAL, model=choice(servers[-1]), prices=PRICES)
        except Crash:
            continue
        break

    sums = await stored(bench)
    shown = outcome.usage
    made = sum(len(server.requests) for server in servers)
    assert (sums.requests, sums.tool_calls) == (shown["requests"], shown["tool_calls"])
    assert sums.requests == made, "each is counted, and once, whether its answer was kept or not"
    assert (sums.input_tokens, sums.output_tokens) == (300, 60)
    assert (sums.cached_input_tokens, sums.unpriced) == (40, made - 3)
    assert (shown["input_tokens"], shown["cost_usd"]) == (None, None), "what the lost ones took nobody knows"
    assert number > 3


async def test_deleted_tasks_give_nothing_back(bench):
    bench.clock = lambda: NOON
    await spend(bench, task_id=1, requests=5)

    await bench.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM task"))

    assert (await stored(bench)).requests == 5


async def test_cached_tokens_are_counted_and_cost_less(bench, scripted):
    server = scripted(turns(Reply("Done.", usage=(100, 20), cached=80)))

    outcome = await bench.run(GOAL, model=choice(server), prices=PRICES)

    assert outcome.usage["cached_input_tokens"] == 80
    assert outcome.usage["cost_usd"] == pytest.approx((20 * 10_000 + 80 * 1000 + 20 * 100_000) / 1e6)


async def test_unknown_cost_is_shown_as_unknown(bench, scripted):
    outcome = await bench.run(GOAL, model=choice(scripted(turns(Reply("Done.")))))

    assert outcome.usage["cost_usd"] is None
    assert outcome.usage["input_tokens"] == 100


async def test_cost_of_a_providers_own_model_is_known(bench, scripted):
    """The library's table holds for the provider's own server, which the test's one stands in for."""
    server = scripted(turns(Reply("Done.", usage=(1_000_000, 0))))
    model = ModelChoice("openai:gpt-5", "model", base_url=server.base_url)

    outcome = await bench.run(GOAL, model=model, limits=RunLimits(tokens=None))

    assert outcome.usage["cost_usd"] == pytest.approx(1.25)


async def test_limit_that_the_task_set_itself_says_so(bench, scripted):
    limits = Limits().asked({"requests": 1})

    outcome = await bench.run(GOAL, model=choice(scripted(FOR_EVER)), limits=limits)

    assert "limits.requests" in outcome.error["hint"]


def test_a_task_can_only_lower_limits():
    limits = Limits(RunLimits(requests=10, cost_usd=None)).asked({"requests": 99, "cost_usd": 2.5, "tokens": 5})

    assert (limits.task.requests, limits.task.cost_usd, limits.task.tokens) == (10, 2.5, 5)
    assert limits.own == {"cost_usd", "tokens"}


def test_settings_give_the_limits():
    settings = Settings.load(
        {"BERAY_MAX_COST_USD": "0.5", "BERAY_MAX_TOKENS_PER_USER_DAY": "9", "BERAY_MAX_COST_USD_PER_DAY": "20"}
    )

    limits = limits_of(settings)

    assert (limits.task.cost_usd, limits.user_day.tokens, limits.server_day.cost_usd) == (0.5, 9, 20)
    assert limits.user_day.requests is None
    assert money_settings(limits) == ["BERAY_MAX_COST_USD", "BERAY_MAX_COST_USD_PER_DAY"]


@pytest.mark.parametrize("raw", ["-1", "1e9", "much", "0.1234567", "nan"])
def test_money_that_is_none_stops_the_start(raw):
    with pytest.raises(SettingError, match="BERAY_MAX_COST_USD"):
        Settings.load({"BERAY_MAX_COST_USD": raw})


# ---- requests whose answer never came whole, or told nothing


UNLIMITED = RunLimits(None, None, None, None, None)
LONG = Reply(["word " * 100] * 100, pause_seconds=0.01)


def cut():
    return Reply(["word " * 100] * 20, cuts_after=10)


async def stop_while_it_answers(bench, server, **changes):
    """A user's stop as the runner makes it, in the middle of a text."""
    running = asyncio.create_task(bench.run(GOAL, model=choice(server), **changes))
    await until(lambda: bench.events("text.delta"), what="a text under way")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_answer_cut_by_a_stop_is_counted(bench, scripted):
    """As a request, by its time, and for limits by an estimate of its tokens and its cost."""
    bench.clock = lambda: NOON

    await stop_while_it_answers(bench, scripted(sequence(LONG)), prices=PRICES)

    sums = await stored(bench)
    assert (sums.requests, sums.unpriced, sums.cost_usd) == (1, 1, 0)
    assert (sums.input_tokens, sums.output_tokens) == (0, 0), "what is shown is known, or nothing"
    assert sums.estimated_tokens > 3000
    assert sums.estimated_tokens * 0.01 < sums.estimated_cost_usd < sums.estimated_tokens * 0.1, "in and out"
    assert sums.elapsed_ms > 0


async def test_answer_cut_by_a_deletion_is_counted(bench, scripted):
    """Nothing can be written of the task any more; what the day needs was written before the request was made."""
    bench.clock = lambda: NOON
    server = scripted(sequence(LONG))
    running = asyncio.create_task(bench.run(GOAL, model=choice(server), prices=PRICES))
    await asyncio.to_thread(wait_until, lambda: server.requests, what="a request")

    await bench.database.write(lambda connection: connection.exec_driver_sql("UPDATE task SET deleted_at = 1") and None)
    with pytest.raises(Fenced):
        await running

    sums = await stored(bench)
    assert (sums.requests, sums.unpriced) == (1, 1)
    assert sums.estimated_tokens > 3000


@pytest.mark.parametrize(
    ("limits", "asked"),
    [(RunLimits(requests=2), 2), (RunLimits(tokens=7000), 2), (replace(UNLIMITED, cost_usd=250), 2)],
    ids=["requests", "tokens", "money"],
)
async def test_cut_answers_cannot_pass_a_limit(bench, scripted, limits, asked):
    """Each counts some 4400 tokens here, most of them at a cent, the others at ten."""
    server = scripted(sequence(*[cut()] * 4, Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server), limits=limits, prices=PRICES)

    assert outcome.error["code"] == "budget_exceeded"
    assert len(server.requests) == outcome.usage["requests"] == asked
    assert (outcome.usage["input_tokens"], outcome.usage["cost_usd"]) == (None, None)
    assert_true_story(await bench.events())


async def test_answers_that_a_kill_has_cut_cannot_pass_a_limit(bench, scripted):
    server = scripted(sequence(*[Reply("Done.")] * 3))
    limits = RunLimits(requests=2)
    for _ in range(2):
        bench.crash = dying_before("text.delta")
        with pytest.raises(Crash):
            await bench.run(GOAL, model=choice(server), limits=limits)
    bench.crash = None

    outcome = await bench.run(GOAL, model=choice(server), limits=limits)

    assert outcome.error["budget"]["used"] == 2
    assert len(server.requests) == 2


def dying_before(event_type):
    def crash(when, types):
        if when == "before" and event_type in types:
            raise Crash(when, types)

    return crash


async def test_what_was_refused_costs_nothing(bench, scripted):
    """Its request counts; its tokens and cost are known: none."""
    bench.clock = lambda: NOON
    server = scripted(sequence(failure(500), Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server), prices=PRICES)

    assert outcome.usage["requests"] == 2
    assert (outcome.usage["input_tokens"], outcome.usage["cost_usd"]) == (100, pytest.approx(3.0))
    sums = await stored(bench)
    assert (sums.unpriced, sums.estimated_tokens, sums.estimated_cost_usd) == (0, 0, 0)


def untold(count):
    """Answers that tell no usage."""
    calls = [Reply(calls=[call("shell", command=f"echo {number}")], usage=None) for number in range(count)]
    return sequence(*calls, Reply("Done.", usage=None))


@pytest.mark.parametrize("scope", ["task", "user_day", "server_day"])
async def test_token_limits_hold_where_the_server_tells_no_usage(bench, scripted, scope):
    server = scripted(untold(20))
    limits = {"task": UNLIMITED, scope: replace(UNLIMITED, tokens=10_000)}

    outcome = await bench.run(GOAL, model=choice(server), limits=Limits(**limits))

    assert (outcome.error["budget"]["limit"], outcome.error["budget"]["scope"]) == ("tokens", scope)
    assert outcome.error["budget"]["used"] >= 10_000
    assert len(server.requests) < 6
    assert outcome.usage["input_tokens"] is None


@pytest.mark.parametrize("scope", ["task", "user_day", "server_day"])
@pytest.mark.parametrize("prices", [PRICES, PriceTable()], ids=["no usage", "no price"])
async def test_money_limits_end_a_run_whose_answers_tell_no_cost(bench, scripted, scope, prices):
    server = scripted(untold(5) if prices is PRICES else FOR_EVER)
    limits = Limits(**{"task": UNLIMITED, scope: replace(UNLIMITED, cost_usd=1000)})

    outcome = await bench.run(GOAL, model=choice(server), limits=limits, prices=prices)

    error = outcome.error
    assert (error["code"], error["retryable"], len(server.requests)) == ("cost_unknown", False, 1)
    assert (error["budget"]["limit"], error["budget"]["scope"], error["budget"]["allowed"]) == ("cost_usd", scope, 1000)
    assert error["budget"]["setting"] in error["hint"]


async def test_a_free_model_need_not_tell_what_it_used(bench, scripted):
    bench.clock = lambda: NOON
    limits = replace(UNLIMITED, cost_usd=1)

    outcome = await bench.run(
        GOAL, model=choice(scripted(untold(2))), limits=limits, prices=PriceTable({"openai:*": Price(0, 0, 0)})
    )

    assert outcome.is_completed
    assert (await stored(bench)).unpriced == 0


async def test_old_days_are_forgotten(bench):
    await spend(bench, day=10, requests=1)
    await spend(bench, day=11, requests=1)

    await bench.database.write(lambda connection: usage.delete_before(connection, 11))

    assert (await stored(bench, day=10)).requests == 0
    assert (await stored(bench, day=11)).requests == 1


# ---- the run's time is up while something is committed


def slow_commits(bench, event_type, *, before=0.0, after=0.0):
    """The first commit of such an event takes so much longer, until it is made, and from then until that is told."""
    make, seen = bench._emitter, []

    def emitter(attempt):
        emit = make(attempt)

        async def slow(*events, also=None):
            is_first = any(event.type == event_type for event in events) and not seen
            if is_first:
                seen.append(event_type)
                await asyncio.sleep(before)
            await emit(*events, also=also)
            if is_first:
                await asyncio.sleep(after)

        return slow

    bench._emitter = emitter
    return seen


@pytest.mark.parametrize("event_type", ["text.delta", "tool.requested", "tool.started", "tool.output", "tool.finished"])
@pytest.mark.parametrize("slow", [{"before": 1.5}, {"after": 1.5}], ids=["before", "after"])
async def test_deadline_in_a_commit_leaves_log_and_memory_agreeing(bench, scripted, event_type, slow):
    """What has begun to be committed is committed, and the run knows it."""
    calls = [call("shell", command=f"echo {number}", id=str(number)) for number in range(2)]
    server = scripted(sequence(Reply("I look.", calls=calls), Reply("Done.")))
    seen = slow_commits(bench, event_type, **slow)

    outcome = await bench.run(GOAL, model=choice(server), limits=RunLimits(wall_seconds=1))

    assert seen
    assert outcome.error["budget"]["limit"] == "wall_seconds"
    events = await bench.events()
    assert_true_story(events)
    calls = await bench.database.read(
        lambda connection: connection.exec_driver_sql("SELECT call_id FROM tool_call WHERE result IS NOT NULL").all()
    )
    finished = [event["call_id"] for event in events if event["type"] == "tool.finished"]
    assert sorted(row.call_id for row in calls) == sorted(finished)
    assert outcome.usage["tool_calls"] == len(calls)


async def test_stop_does_not_wait_for_a_commit_that_cannot_be_made(bench, scripted):
    """Also when the run's time was up already, and that waits for the commit."""
    server = scripted(sequence(Reply("I look.", calls=[call("shell", command="echo hm")])))
    seen = slow_commits(bench, "tool.started", before=1000)
    running = asyncio.create_task(bench.run(GOAL, model=choice(server), limits=RunLimits(wall_seconds=1)))
    await asyncio.to_thread(wait_until, lambda: seen, what="a commit")
    assert (await asyncio.wait({running}, timeout=1.5))[1], "it waits on, though its time is up"

    running.cancel()

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await running
