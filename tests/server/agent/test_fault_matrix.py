"""What a model or its server can do wrong, and what then happens: the fault matrix.

| scenario | the run | requests the server sees |
| --- | --- | --- |
| 401 | `model_auth` | 1 |
| 404 | `model_not_found` | 1 |
| context length | makes room once and asks again; `context_exceeded` where nothing can be left out | 2; 1 |
| 429 with Retry-After | waits as told, goes on | 2 |
| quota | `model_quota` | 1 |
| 500, 503, and 408, 425 of gateways | tries again; `model_unavailable` (retryable) if it stays | 2; 5 |
| cut stream, one that is no JSON, or JSON of another form | takes its text back, tries again | 2 |
| malformed tool JSON, wrong arguments, unknown tool | the call isn't started, the model is told why | 2 |
| arguments nested without end | as wrong ones; as a stream that is no JSON, where the frame itself is | 2 |
| empty answer | asked again; `model_empty` (retryable) if it stays | 2; 3 |
| no usage | tokens are null | 1 |
| runaway loop | `budget_exceeded`, which says of what | as many as allowed |
| slow tokens | shown as they come | 1 |
| stop in text, stop in tool | ends at once, no process is left | 1 |
| an answer without end | `budget_exceeded`; `model_output_cut` where tokens have no limit | 1 |
| calls without end | the answer is left, none is run, the model is told how many it may make | 2 |
| an event without end | as a stream that is no JSON | 2 |
| huge output | people and model get a bounded part | 2 |

All of it over OpenAI's wire and over Anthropic's. After each, `assert_true_story` holds of the events: no event of a
cut try survives as truth.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.run import Outcome
from beray.server.agent.tools.output import LOG_BYTES, MODEL_BYTES, SHOWN_BYTES
from tests.support.agent_bench import Bench
from tests.support.scripted_model import Reply, Script, ScriptedModel, call, failure, results_of, sequence, turns
from tests.support.story import assert_true_story, texts_of
from tests.support.waiting import until

GOAL = "Write a program that greets."
KEY = "sk-secret-key-1234567890"
SHOWN_AT_ONCE = "Wrong words. " * 200  # enough for an event of its own before the answer is whole


@dataclass
class Played:
    """One run, as it ended, as people saw it and as the model's server did."""

    outcome: Outcome
    events: list[dict[str, Any]]
    server: ScriptedModel

    @property
    def requests(self) -> int:
        return len(self.server.requests)

    @property
    def told(self) -> list[str]:
        """What the model was told of its calls."""
        return results_of(self.server.requests[-1])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


class Player:
    """Plays a script over one provider's wire."""

    def __init__(self, bench: Bench, scripted: Any, wire: str) -> None:
        self.bench = bench
        self._scripted = scripted
        self.wire = wire

    def start(self, script: Script) -> ScriptedModel:
        server: ScriptedModel = self._scripted(script)
        return server

    def model(self, server: ScriptedModel, **changes: Any) -> ModelChoice:
        url = server.base_url.removesuffix("/v1") if self.wire == "anthropic" else server.base_url
        values = {"base_url": url, "api_key": KEY, "is_own_url": True, **changes}
        return ModelChoice(f"{self.wire}:scripted", "model", **values)

    async def __call__(self, script: Script, *, timeout_seconds: int = 20, **changes: Any) -> Played:
        server = self.start(script)
        model = self.model(server, timeout_seconds=timeout_seconds)
        outcome = await self.bench.run(GOAL, model=model, **changes)
        events = await self.bench.events()
        assert_true_story(events)
        assert outcome.usage is not None
        assert outcome.is_completed == (outcome.error is None)
        if outcome.error is not None:
            assert KEY not in outcome.error["message"]
            assert outcome.error["hint"]
        return Played(outcome, events, server)


@pytest.fixture(params=["openai", "anthropic"])
def play(bench, scripted, request):
    return Player(bench, scripted, request.param)


def assert_failed(played, code, *, retryable=False, requests=1):
    error = played.outcome.error
    assert (error["code"], error["retryable"], played.requests) == (code, retryable, requests)
    usage = played.outcome.usage
    assert (usage["requests"], usage["input_tokens"]) == (requests, None), "requests count also where nothing answers"
    assert texts_of(played.events) == []


def assert_went_on(played, *, requests=2, is_told=True):
    """After a try that failed, as if that had not been, but for its being counted.

    Nobody knows what an answer took that was cut (not `is_told`).
    """
    assert (played.outcome.result, played.requests) == ("done", requests)
    assert len(played.of("model.retry")) == requests - 1
    usage = {name: played.outcome.usage[name] for name in ("requests", "input_tokens", "output_tokens")}
    tokens = {"input_tokens": 100, "output_tokens": 20} if is_told else {"input_tokens": None, "output_tokens": None}
    assert usage == {"requests": requests, **tokens}
    assert texts_of(played.events) == ["done"]


def assert_told_and_mended(played, why):
    """The call never ran, and the model's next answer was given knowing why."""
    assert played.outcome.result == "mended"
    assert played.requests == 2
    assert why in played.told[-1]
    assert played.of("tool.started") == []
    assert [event["ok"] for event in played.of("tool.finished")] == [False]
    assert played.outcome.usage["tool_calls"] == 0


# ---- the server refuses


async def test_401_ends_the_run_at_once(play):
    played = await play(sequence(failure(401, f"Incorrect API key provided: {KEY[:7]}***7890")))

    assert_failed(played, "model_auth")
    assert "sk-" not in played.outcome.error["message"]


async def test_404_ends_the_run_at_once(play):
    assert_failed(await play(sequence(failure(404, "no such model"))), "model_not_found")


async def test_context_length_ends_the_run(play):
    played = await play(sequence(failure(400, "too long", code="context_length_exceeded")))

    assert_failed(played, "context_exceeded")


async def test_context_length_after_long_work_makes_room_once(play):
    """Old results go, and the same request is made with what is left."""

    def script(request, number):
        if number < 10:
            return Reply(calls=[call("shell", command=f"seq {number * 1000} {number * 1000 + 900}")])
        if number == 10:
            return failure(400, "too long", code="context_length_exceeded")
        return Reply("done" if request.get("tools") else "So far all went well.")

    played = await play(script)

    assert played.outcome.result == "done"
    assert len(played.of("context.compacted")) == 1
    assert played.of("model.retry") == []


async def test_429_is_tried_again_after_the_time_it_asks_for(play):
    played = await play(sequence(failure(429, "slow down", Retry_After="1"), Reply("done")))

    assert_went_on(played)
    retry = played.of("model.retry")[0]
    assert (retry["attempt"], retry["wait_s"], retry["code"]) == (1, 1.0, "model_rate_limited")


async def test_quota_ends_the_run_at_once(play):
    played = await play(sequence(failure(429, "You exceeded your quota", code="insufficient_quota")))

    assert_failed(played, "model_quota")


@pytest.mark.parametrize("failures", [1, 4, 5], ids=["once", "four times", "for ever"])
@pytest.mark.parametrize("status", [408, 425, 500, 503])
async def test_500_is_tried_again_four_times(play, status, failures):
    played = await play(sequence(*[failure(status, "broken")] * failures, Reply("done")))

    if failures < 5:
        assert_went_on(played, requests=failures + 1)
    else:
        assert_failed(played, "model_unavailable", retryable=True, requests=5)


# ---- the answer breaks off, or is none


@pytest.mark.parametrize("cuts_after", range(7))
async def test_cut_stream_is_taken_back_and_tried_again(play, cuts_after):
    """Wherever it is cut: before anything, within the text, within a call, or before its end."""
    half = Reply([SHOWN_AT_ONCE, "never"], calls=[call("write_file", path="wrong", content="x")], cuts_after=cuts_after)

    played = await play(sequence(half, Reply("done")))

    assert_went_on(played, is_told=False)
    assert [event["text"] for event in played.of("text.done")] == ["done"]
    shown = {event["message_id"] for event in played.of("text.delta")}
    assert {event["message_id"] for event in played.of("text.reset")} == shown - {
        event["message_id"] for event in played.of("text.done")
    }
    assert played.of("tool.requested") == []
    assert list(play.bench.work_dir.iterdir()) == []


def chunk(**choice):
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


@pytest.mark.parametrize(
    "garbled",
    [
        [],
        5,
        "text",
        {"choices": "text"},
        {"choices": [5]},
        chunk(index=0, delta="text"),
        chunk(index=0, delta={"content": {"of": "another form"}}),
        chunk(index=0, delta={"tool_calls": 5}),
        chunk(index=0, delta={"tool_calls": [{"index": 0, "function": "text"}]}),
        {"type": "content_block_delta", "index": 0, "delta": 5},
        {"type": "content_block_start", "index": "x", "content_block": []},
    ],
    ids=repr,
)
async def test_json_of_another_form_is_taken_back_and_tried_again(play, garbled):
    """Or passed over, where the library does so: it never is a fault of ours."""
    bad = Reply([SHOWN_AT_ONCE], garbles_after=2, garbles_with=garbled)

    played = await play(sequence(bad, Reply("done")))

    assert played.outcome.is_completed
    assert played.outcome.result in {"done", SHOWN_AT_ONCE.strip()}


@pytest.mark.parametrize("garbles_after", range(3))
async def test_unreadable_answer_is_taken_back_and_tried_again(play, garbles_after):
    """As a proxy in trouble gives it, with status 200."""
    played = await play(sequence(Reply([SHOWN_AT_ONCE], garbles_after=garbles_after), Reply("done")))

    assert_went_on(played, is_told=False)
    assert [retry["code"] for retry in played.of("model.retry")] == ["model_error"]


async def test_a_frame_nested_without_end_is_taken_back_and_tried_again(play):
    nested = b"event: content_block_delta\ndata: " + b"[" * 200_000 + b"\n\n"
    bad = Reply([SHOWN_AT_ONCE], garbles_after=2, garbles_with=nested)

    played = await play(sequence(bad, Reply("done")))

    assert_went_on(played, is_told=False)
    assert [retry["code"] for retry in played.of("model.retry")] == ["model_error"]


@pytest.mark.parametrize(
    ("name", "most", "flood"),
    [
        ("MOST_EVENT_BYTES", 300_000, b"x" * 60_000),
        ("MOST_EVENT_BYTES", 300_000, b"data: " + b"x" * 60_000 + b"\n"),
        ("MOST_EVENT_LINES", 1000, b"data: x\r\n" * 100),
        ("MOST_BODY_BYTES", 300_000, b": nothing\n\n" * 6000),
    ],
    ids=["line", "event", "lines", "comments"],
)
async def test_an_event_without_end_is_taken_back_and_tried_again(play, monkeypatch, name, most, flood):
    monkeypatch.setattr(f"beray.server.agent.models.http_client.{name}", most)
    endless = Reply([SHOWN_AT_ONCE], floods_after=2, garbles_with=flood)

    played = await play(sequence(endless, Reply("done")))

    assert_went_on(played, is_told=False)
    assert [retry["code"] for retry in played.of("model.retry")] == ["model_error"]


@pytest.mark.parametrize("silences", [1, 3], ids=["once", "for ever"])
async def test_empty_answer_is_asked_again(play, silences):
    played = await play(sequence(*[Reply()] * silences, Reply("now")))

    if silences == 1:
        assert (played.outcome.result, played.requests) == ("now", 2)
    else:
        assert (played.outcome.error["code"], played.outcome.error["retryable"]) == ("model_empty", True)
        assert played.requests == 3
    assert played.outcome.usage["requests"] == played.requests, "what was answered is paid for"


async def test_no_usage_is_shown_as_unknown(play):
    played = await play(sequence(Reply("done", usage=None)))

    usage = played.outcome.usage
    assert (usage["requests"], usage["input_tokens"], usage["output_tokens"], usage["cost_usd"]) == (
        1,
        None,
        None,
        None,
    )


async def test_slow_tokens_are_shown_as_they_come(play):
    """The timeout is for silence, not for the whole answer."""
    pieces = ["One ", "after ", "the ", "other"] * 3

    played = await play(sequence(Reply(pieces, pause_seconds=0.2)), timeout_seconds=2)

    assert (played.outcome.result, played.requests) == ("".join(pieces), 1)
    assert played.of("model.retry") == []
    assert len(played.of("text.delta")) > 1


# ---- the calls are wrong


async def test_malformed_tool_json_is_told_to_the_model(play):
    wrong = call("shell", raw='{"command": "ls')

    assert_told_and_mended(await play(turns(Reply(calls=[wrong]), Reply("mended"))), "JSON")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [(call("shell", comand="ls"), "command"), (call("shell", command="ls", timeout=9999), "600")],
    ids=["missing", "too large"],
)
async def test_wrong_args_are_told_to_the_model(play, wrong, why):
    assert_told_and_mended(await play(turns(Reply(calls=[wrong]), Reply("mended"))), why)


@pytest.mark.parametrize("depth", [65, 150, 900, 30_000])
@pytest.mark.parametrize("is_whole", [True, False], ids=["JSON", "no JSON"])
async def test_arguments_nested_without_end_are_told_to_the_model(play, depth, is_whole):
    raw = '{"command":' * depth + ("1" + "}" * depth if is_whole else "")

    played = await play(turns(Reply(calls=[call("shell", raw=raw)]), Reply("mended")))

    assert_told_and_mended(played, "nested more than 64 levels deep")
    assert [event["args"] for event in played.of("tool.requested")] == [{}]


async def test_arguments_nested_as_deep_as_is_taken_are_looked_at(play):
    raw = '{"command":' * 64 + "1" + "}" * 64

    played = await play(turns(Reply(calls=[call("shell", raw=raw)]), Reply("mended")))

    assert_told_and_mended(played, "string")


async def test_a_call_beside_one_with_deep_arguments_is_run(play):
    deep, good = call("shell", raw="[" * 1000), call("shell", command="echo good")

    played = await play(turns(Reply(calls=[deep, good]), Reply("done")))

    assert [event["ok"] for event in played.of("tool.finished")] == [False, True]
    assert "64 levels" in played.told[0]
    assert "good" in played.told[1]


def block(given):
    """How Anthropic's wire begins a call: with a value, where others have text."""
    return {"type": "content_block_start", "index": 0, "content_block": {**SHELL, "input": given}}


SHELL = {"type": "tool_use", "id": "toolu_1", "name": "shell"}


@pytest.mark.parametrize("depth", [65, 300, 600])
async def test_arguments_given_as_a_deep_value_are_told_to_the_model(bench, scripted, depth):
    given: dict[str, Any] = {}
    for _ in range(depth):
        given = {"command": given}
    play = Player(bench, scripted, "anthropic")

    played = await play(turns(Reply(garbles_after=1, garbles_with=block(given)), Reply("mended")))

    assert_told_and_mended(played, "nested more than 64 levels deep")


async def test_half_a_character_in_arguments_given_as_a_value_is_replaced(bench, scripted):
    play = Player(bench, scripted, "anthropic")
    half = block({"command": "echo '\ud83d'"})

    played = await play(turns(Reply(garbles_after=1, garbles_with=half), Reply("done")))

    assert played.outcome.result == "done"
    assert "\ufffd" in played.told[0]


async def test_unknown_tool_is_told_to_the_model_with_the_known_ones(play):
    played = await play(turns(Reply(calls=[call("nonsense", x=1)]), Reply("mended")))

    assert_told_and_mended(played, "nonsense")
    assert "'shell'" in played.told[-1]


# ---- too much


@pytest.mark.parametrize(
    ("limits", "limit", "requests"),
    [
        (RunLimits(requests=2), "requests", 2),
        (RunLimits(tool_calls=2), "tool_calls", 3),
        (RunLimits(tokens=200), "tokens", 2),
    ],
    ids=["requests", "tool calls", "tokens"],
)
async def test_runaway_loop_is_ended_by_a_limit(play, limits, limit, requests):
    def script(request, number):
        return Reply(calls=[call("shell", command=f"echo {number}")])

    played = await play(script, limits=limits)

    assert (played.outcome.error["code"], played.outcome.error["retryable"]) == ("budget_exceeded", False)
    assert f"({limit})" in played.outcome.error["message"]
    assert played.requests == played.outcome.usage["requests"] == requests
    assert played.outcome.usage["tool_calls"] == 2


TEXT_FRAMES = {
    "openai": [{"choices": [{"index": 0, "delta": {"content": "lorem ipsum " * 100}}]}],
    "anthropic": [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lorem " * 200}}],
}


@pytest.fixture
def endless(play):
    """An answer whose text never ends."""
    head = b"event: content_block_delta\n" if play.wire == "anthropic" else b""
    frames = [head + b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in TEXT_FRAMES[play.wire]]
    return Reply(["Once. "], floods_after=2, garbles_with=b"".join(frames))


async def test_an_answer_without_end_is_ended_by_the_limit_on_tokens(play, endless):
    played = await play(sequence(endless), limits=RunLimits(tokens=20_000))

    error = played.outcome.error
    assert (error["code"], error["budget"]["limit"], error["budget"]["allowed"]) == (
        "budget_exceeded",
        "tokens",
        20_000,
    )
    assert error["budget"]["used"] > error["budget"]["allowed"] == 20_000
    assert played.requests == 1
    assert texts_of(played.events) == []


async def test_an_answer_without_end_is_cut_where_tokens_have_no_limit(play, endless, monkeypatch):
    monkeypatch.setattr("beray.server.agent.answer_bounds.MOST_ANSWER_BYTES", 100_000)

    played = await play(sequence(endless), limits=RunLimits(tokens=None))

    assert_failed(played, "model_output_cut")
    assert "100000 bytes" in played.outcome.error["message"]


async def test_arguments_without_end_count_as_text_does(play):
    played = await play(
        sequence(Reply(calls=[call("write_file", path="a", content="x" * 100_000)])), limits=RunLimits(tokens=20_000)
    )

    assert played.outcome.error["budget"]["limit"] == "tokens"
    assert played.of("tool.started") == []


async def test_calls_without_end_are_left_and_told_to_the_model(play):
    """None is run; the text that came with them stays."""
    calls = [call("shell", command=f"touch {number}", id=f"c{number}") for number in range(300)]

    played = await play(turns(Reply(["So many."], calls=calls), Reply("mended")))

    assert (played.outcome.result, played.requests) == ("mended", 2)
    assert len(played.told) == 64
    assert all("more than 64 calls" in told for told in played.told)
    assert [event["ok"] for event in played.of("tool.finished")] == [False] * 64
    assert len(played.of("tool.requested")) == 64
    assert played.of("tool.started") == []
    assert texts_of(played.events) == ["So many.", "mended"]
    usage = played.outcome.usage
    assert (usage["requests"], usage["tool_calls"], usage["output_tokens"]) == (2, 0, None)
    assert list(play.bench.work_dir.iterdir()) == []


async def test_as_many_calls_as_are_taken_are_run(play):
    calls = [call("shell", command="true", id=f"c{number}") for number in range(64)]

    played = await play(turns(Reply(calls=calls), Reply("done")), stuck=None)

    assert (played.outcome.result, played.outcome.usage["tool_calls"]) == ("done", 64)


async def test_huge_output_is_cut_for_people_and_model(play):
    command = f"yes 0123456789 | head -c {2 * LOG_BYTES}; echo the end"

    played = await play(turns(Reply(calls=[call("shell", command=command)]), Reply("done")))

    assert played.outcome.result == "done"
    assert len(played.told[-1]) < MODEL_BYTES + 500
    assert "bytes left out here" in played.told[-1]
    assert played.told[-1].rstrip().endswith("the end"), "errors come last, so the end is what must be kept"
    shown = sum(len(event["delta"]) for event in played.of("tool.output"))
    assert shown == SHOWN_BYTES
    assert played.of("tool.output")[-1]["truncated"]
    assert played.of("tool.finished")[0]["truncated"]
    kept = {path.suffix: path.stat().st_size for path in (play.bench.root / "output").iterdir()}
    assert kept == {".log": LOG_BYTES, ".cut": 0}, "a mark says that not all is kept"


# ---- people stop it


async def test_stop_in_text_is_at_once(play):
    server = play.start(sequence(Reply(["Once upon", " a time"], hangs_after=2)))
    running = asyncio.create_task(play.bench.run(GOAL, model=play.model(server)))
    await until(lambda: play.bench.events("text.delta"))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)

    assert_true_story(await play.bench.events(), is_ended=False)
    assert len(server.requests) == 1


async def test_stop_in_tool_kills_its_processes(play):
    server = play.start(sequence(Reply(calls=[call("shell", command="echo on; sleep 60 & sleep 60")])))
    running = asyncio.create_task(play.bench.run(GOAL, model=play.model(server)))
    await until(lambda: play.bench.events("tool.output"))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)

    assert play.bench.sandbox.running == set()
    assert_true_story(await play.bench.events(), is_ended=False)
    assert len(server.requests) == 1
