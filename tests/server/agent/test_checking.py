"""One real call to a model: what it answered, or what is wrong."""

import asyncio
import threading

import pytest

from beray.server.agent.checking import FAILED_KEPT_SECONDS, KEPT_SECONDS, ModelChecks
from beray.server.agent.models import ModelChoice, Models
from beray.server.errors import Refused
from beray.server.messages import current_language
from tests.support.scripted_model import Reply, call, failure, sequence
from tests.support.waiting import until


class Checks(ModelChecks):
    """With a clock that the test sets."""

    def __init__(self, *servers):
        self.now = 0.0
        named = [
            ModelChoice(f"openai:{name}", "model", base_url=server.base_url, api_key="sk-secret-key-123")
            for name, server in zip("abc", servers, strict=False)
        ]
        super().__init__(Models(named[0], further=tuple(named[1:])), clock=lambda: self.now)


@pytest.fixture(autouse=True)
def english():
    token = current_language.set("en")
    yield
    current_language.reset(token)


async def test_what_the_model_answered_is_told_with_its_time(scripted):
    server = scripted(sequence(Reply(["O", "K"])))

    checked = await Checks(server).check(None)

    assert checked.pop("latency_ms") >= 0
    assert checked == {"model": "openai:a", "model_kind": "model", "ok": True, "answered": "OK", "error": None}


async def test_the_request_is_such_as_a_task_makes(scripted):
    """Streamed and with a tool: a model that can't do these would fail every task."""
    server = scripted(sequence(Reply("OK")))

    await Checks(server).check(None)

    assert server.requests[0]["stream"] is True
    assert len(server.requests[0]["tools"]) == 1
    assert len(str(server.requests[0])) < 1000


async def test_a_long_answer_is_cut(scripted):
    assert len((await Checks(scripted(sequence(Reply("x" * 1000)))).check(None))["answered"]) == 100


@pytest.mark.parametrize(
    "reply", [Reply(calls=[call("note", text="hm")]), Reply(usage=(10, 2000), finish_reason="length")]
)
async def test_a_model_that_did_something_else_has_answered_too(scripted, reply):
    checked = await Checks(scripted(sequence(reply))).check(None)

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
async def test_what_is_wrong_is_told_with_what_to_do_and_asked_once(scripted, reply, code):
    server = scripted(sequence(reply))

    checked = await Checks(server).check(None)

    assert (checked["ok"], checked["answered"], checked["error"]["code"]) == (False, None, code)
    assert checked["error"]["hint"]
    assert "sk-" not in str(checked)
    assert len(server.requests) == 1


async def test_a_model_that_does_not_answer_in_time_is_given_up(scripted, monkeypatch):
    monkeypatch.setattr("beray.server.agent.checking.CHECK_SECONDS", 1)

    checked = await Checks(scripted(sequence(Reply("O", hangs_after=1)))).check(None)

    assert checked["error"]["code"] == "model_unreachable"
    assert "1 seconds" in checked["error"]["message"]


async def test_a_fault_is_told_in_the_language_of_who_asks(scripted):
    checks = Checks(scripted(sequence(failure(401))))
    first = await checks.check(None)

    current_language.set("zh")
    second = await checks.check(None)

    assert "refused the key" in first["error"]["message"]
    assert "拒绝了密钥" in second["error"]["message"]


async def test_many_who_ask_at_once_cost_one_call(scripted):
    server = scripted(sequence(Reply(["O", "K"])))
    checks = Checks(server)

    answers = await asyncio.gather(*(checks.check(None) for _ in range(20)))

    assert all(answer == answers[0] for answer in answers)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("reply", "kept"), [(Reply("OK"), KEPT_SECONDS), (failure(401), FAILED_KEPT_SECONDS)])
async def test_an_answer_is_given_again_for_a_while(scripted, reply, kept):
    server = scripted(sequence(reply))
    checks = Checks(server)
    first = await checks.check(None)

    checks.now = kept
    assert await checks.check(None) == first
    assert len(server.requests) == 1

    checks.now = kept + 1
    await checks.check(None)
    assert len(server.requests) == 2


async def test_each_model_is_asked_for_itself(scripted):
    first, second = scripted(sequence(Reply("A"))), scripted(sequence(Reply("B")))
    checks = Checks(first, second)

    assert (await checks.check(None))["answered"] == "A"
    assert (await checks.check("openai:b"))["answered"] == "B"


async def test_a_model_that_is_not_offered_is_refused_with_the_list(scripted):
    with pytest.raises(Refused, match="openai:a") as error:
        await Checks(scripted(sequence(Reply("OK")))).check("openai:other")

    assert (error.value.code, error.value.status_code) == ("unknown_model", 422)


async def test_rules_need_no_call():
    checked = await ModelChecks(Models(ModelChoice("beray:rules", "rules"))).check(None)

    assert (checked["ok"], checked["model_kind"], checked["answered"]) == (True, "rules", None)


async def test_who_asked_may_leave_and_the_answer_is_there_for_the_next(scripted):
    has_left = threading.Event()

    def script(request, number):
        assert has_left.wait(20)
        return Reply("OK")

    server = scripted(script)
    checks = Checks(server)
    asking = asyncio.create_task(checks.check(None))
    await until(lambda: server.requests)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    has_left.set()

    assert (await checks.check(None))["answered"] == "OK"
    assert len(server.requests) == 1


async def test_closing_cuts_what_is_still_asked(scripted):
    server = scripted(sequence(Reply("O", hangs_after=1)))
    checks = Checks(server)
    asking = asyncio.create_task(checks.check(None))
    await until(lambda: server.requests)

    await checks.close()

    with pytest.raises(asyncio.CancelledError):
        await asking
