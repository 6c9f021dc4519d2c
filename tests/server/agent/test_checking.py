"""One real call to a model: what it answered, or what is wrong."""

import asyncio
import threading
from functools import partial

import pytest
from pydantic_ai.exceptions import ModelAuthenticationError

from beray.server.agent.budget import Limits, RunLimits
from beray.server.agent.ledger import DayLedger
from beray.server.agent.models.checking import FAILED_KEPT_SECONDS, KEPT_SECONDS, ModelChecks
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.one_call import ask_for_a_word, describe
from beray.server.agent.models.prices import Price, PriceTable
from beray.server.clock import DAY_MS
from beray.server.db import usage
from beray.server.db.usage import UsedSums
from beray.server.errors import Refused
from beray.server.messages import current_language
from tests.support.scripted_model import Reply, call, failure, sequence
from tests.support.waiting import until

NOON = DAY_MS // 2
NO_DAY_LIMITS = Limits()
PRICES = PriceTable({"openai:*": Price(input=10, output=100, cached_input=1)})


class Checks(ModelChecks):
    """With a clock that the test sets, and a database with one user in it."""

    def __init__(self, *servers, database, limits=NO_DAY_LIMITS, prices=PRICES):
        self.now = 0.0
        self.database = database
        named = [
            ModelChoice(f"openai:{name}", "model", base_url=server.base_url, api_key="sk-secret-key-123")
            for name, server in zip("abc", servers, strict=False)
        ]
        super().__init__(
            Models(named[0], further=tuple(named[1:])),
            prices=prices,
            ledger_of=lambda user_id: DayLedger(database, lambda: NOON, user_id, limits),
            clock=lambda: self.now,
        )

    async def check(self, name, *, user_id=1):
        return await super().check(name, user_id=user_id)

    async def used(self, user_id=1):
        """What is counted for the user's day."""
        return await self.database.read(lambda connection: usage.sum_of_user(connection, user_id, 0))


@pytest.fixture
def checks(bench):
    """Checks of what these servers serve."""
    return partial(Checks, database=bench.database)


@pytest.fixture(autouse=True)
def english():
    token = current_language.set("en")
    yield
    current_language.reset(token)


async def test_what_the_model_answered_is_told_with_its_time(checks, scripted):
    server = scripted(sequence(Reply(["O", "K"])))

    checked = await checks(server).check(None)

    assert checked.pop("latency_ms") >= 0
    assert checked == {"model": "openai:a", "model_kind": "model", "ok": True, "answered": "OK", "error": None}


async def test_the_request_is_such_as_a_task_makes(checks, scripted):
    """Streamed and with a tool: a model that can't do these would fail every task."""
    server = scripted(sequence(Reply("OK")))

    await checks(server).check(None)

    assert server.requests[0]["stream"] is True
    assert len(server.requests[0]["tools"]) == 1
    assert len(str(server.requests[0])) < 1000


async def test_a_long_answer_is_cut(checks, scripted):
    assert len((await checks(scripted(sequence(Reply("x" * 1000)))).check(None))["answered"]) == 100


@pytest.mark.parametrize(
    "reply", [Reply(calls=[call("note", text="hm")]), Reply(usage=(10, 2000), finish_reason="length")]
)
async def test_a_model_that_did_something_else_has_answered_too(checks, scripted, reply):
    checked = await checks(scripted(sequence(reply))).check(None)

    assert (checked["ok"], checked["answered"]) == (True, "")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (failure(401, "Incorrect API key provided: sk-secr***-123"), "model_auth"),
        (failure(429, "You exceeded your quota", code="insufficient_quota"), "model_quota"),
        (failure(404, "no such model"), "model_not_found"),
        (failure(400, "this model does not support tools"), "model_error"),
        (failure(503), "model_unavailable"),
        (Reply("O", cuts_after=1), "model_unreachable"),
        (Reply(), "model_empty"),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_do_and_asked_once(checks, scripted, reply, code):
    server = scripted(sequence(reply))

    checked = await checks(server).check(None)

    assert (checked["ok"], checked["answered"], checked["error"]["code"]) == (False, None, code)
    assert checked["error"]["hint"]
    assert "sk-" not in str(checked)
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [failure(503), failure(429, "slow down"), Reply("O", cuts_after=1)])
async def test_a_hint_speaks_of_no_task(checks, scripted, reply):
    hint = (await checks(scripted(sequence(reply))).check(None))["error"]["hint"]

    assert "task" not in hint
    assert "again" in hint or "Check that" in hint


@pytest.mark.parametrize(
    ("key_names", "named"), [(("VLLM_API_KEY", "OTHER"), "VLLM_API_KEY / OTHER"), ((), "BERAY_MODEL_API_KEY")]
)
async def test_a_key_that_was_never_set_is_not_called_refused(scripted, key_names, named):
    server = scripted(sequence(failure(401, "give me a key")))
    choice = ModelChoice("vllm:a", "model", base_url=server.base_url, key_names=key_names)
    with pytest.raises(ModelAuthenticationError) as refused:
        await ask_for_a_word(choice, PRICES)

    error = describe(refused.value, choice, "en", seconds=28)

    assert error["code"] == "model_auth"
    assert error["message"] == "The server of model vllm:a wants a key, and none is set for it: give me a key"
    assert named in error["hint"]


async def test_a_model_that_does_not_answer_in_time_is_given_up(checks, scripted, monkeypatch):
    monkeypatch.setattr("beray.server.agent.models.checking.CHECK_SECONDS", 1)

    checked = await checks(scripted(sequence(Reply("O", hangs_after=1)))).check(None)

    assert checked["error"]["code"] == "model_unreachable"
    assert "1 seconds" in checked["error"]["message"]


async def test_a_fault_is_told_in_the_language_of_who_asks(checks, scripted):
    asked = checks(scripted(sequence(failure(401))))
    first = await asked.check(None)

    current_language.set("zh")
    second = await asked.check(None)

    assert "refused the key" in first["error"]["message"]
    assert "拒绝了密钥" in second["error"]["message"]


async def test_many_who_ask_at_once_cost_one_call(checks, scripted):
    server = scripted(sequence(Reply(["O", "K"])))
    asked = checks(server)

    answers = await asyncio.gather(*(asked.check(None) for _ in range(20)))

    assert all(answer == answers[0] for answer in answers)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("reply", "kept"), [(Reply("OK"), KEPT_SECONDS), (failure(401), FAILED_KEPT_SECONDS)])
async def test_an_answer_is_given_again_for_a_while(checks, scripted, reply, kept):
    server = scripted(sequence(reply))
    asked = checks(server)
    first = await asked.check(None)

    asked.now = kept
    assert await asked.check(None) == first
    assert len(server.requests) == 1

    asked.now = kept + 1
    await asked.check(None)
    assert len(server.requests) == 2


async def test_each_model_is_asked_for_itself(checks, scripted):
    first, second = scripted(sequence(Reply("A"))), scripted(sequence(Reply("B")))
    asked = checks(first, second)

    assert (await asked.check(None))["answered"] == "A"
    assert (await asked.check("openai:b"))["answered"] == "B"


async def test_a_model_that_is_not_offered_is_refused_with_the_list(checks, scripted):
    with pytest.raises(Refused, match="openai:a") as error:
        await checks(scripted(sequence(Reply("OK")))).check("openai:other")

    assert (error.value.code, error.value.status_code) == ("unknown_model", 422)


async def test_rules_need_no_call():
    models = Models(ModelChoice("beray:rules", "rules"))
    rules = ModelChecks(models, prices=PriceTable(), ledger_of=lambda user_id: pytest.fail("rules cost nothing"))

    checked = await rules.check(None, user_id=1)

    assert (checked["ok"], checked["model_kind"], checked["answered"]) == (True, "rules", None)


async def test_who_asked_may_leave_and_the_answer_is_there_for_the_next(checks, scripted):
    has_left = threading.Event()

    def script(request, number):
        assert has_left.wait(20)
        return Reply("OK")

    server = scripted(script)
    asked = checks(server)
    asking = asyncio.create_task(asked.check(None))
    await until(lambda: server.requests)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    has_left.set()

    assert (await asked.check(None))["answered"] == "OK"
    assert len(server.requests) == 1


async def test_closing_cuts_what_is_still_asked(checks, scripted):
    server = scripted(sequence(Reply("O", hangs_after=1)))
    asked = checks(server)
    asking = asyncio.create_task(asked.check(None))
    await until(lambda: server.requests)

    await asked.close()

    with pytest.raises(asyncio.CancelledError):
        await asking


# ---- what it costs


async def test_a_check_counts_for_the_day_of_who_asks(checks, scripted):
    asked = checks(scripted(sequence(Reply("OK", usage=(100, 20), cached=50))))

    await asked.check(None)
    await asked.check(None)

    cost = pytest.approx((50 * 10 + 50 * 1 + 20 * 100) / 1e6)
    assert await asked.used() == UsedSums(
        requests=1, input_tokens=100, cached_input_tokens=50, output_tokens=20, cost_usd=cost
    )


@pytest.mark.parametrize(
    ("reply", "unpriced"), [(failure(401), 0), (Reply("O", cuts_after=1), 1), (Reply("OK", usage=None), 1)]
)
async def test_a_check_of_unknown_cost_counts_by_its_estimate(checks, scripted, reply, unpriced):
    """What was refused costs nothing, but is a request."""
    asked = checks(scripted(sequence(reply)))

    await asked.check(None)

    used = await asked.used()
    assert (used.requests, used.unpriced, used.cost_usd) == (1, unpriced, 0)
    assert (used.tokens > 0, used.money_usd > 0) == (unpriced > 0, unpriced > 0)


@pytest.mark.parametrize("scope", ["user_day", "server_day"])
@pytest.mark.parametrize("limit", [{"requests": 1}, {"tokens": 100}, {"cost_usd": 0.001}])
async def test_a_days_limit_forbids_the_call(checks, scripted, scope, limit):
    server = scripted(sequence(Reply("OK", usage=(100, 20))))
    nothing_else = dict.fromkeys(vars(RunLimits()))
    asked = checks(server, limits=Limits(**{scope: RunLimits(**{**nothing_else, **limit})}))
    first = await asked.check(None)

    assert await asked.check(None) == first, "an answer that is there costs nothing"
    asked.now = KEPT_SECONDS + 1
    with pytest.raises(Refused, match="BERAY_MAX_") as refused:
        await asked.check(None)

    assert (refused.value.code, refused.value.status_code) == ("day_limit_reached", 429)
    assert refused.value.retry_after_seconds == DAY_MS // 2000 + 1
    assert len(server.requests) == 1
