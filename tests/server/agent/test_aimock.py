"""The loop beside a model server by others: what we take for providers' wires is not our own reading of them alone."""

import asyncio
from collections import Counter

import pytest

from beray.server.agent.models.choice import ModelChoice
from tests.support.aimock import Aimock
from tests.support.story import assert_true_story, texts_of
from tests.support.waiting import until

pytestmark = pytest.mark.needs("aimock")

GOAL = "Write hello world, and run it."
FINAL = "hello.py prints hello world."
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
LONG = "A long answer of which half is sent. " * 40


def turn(number, response, *, match=None, **fields):
    matched = {"userMessage": GOAL, "turnIndex": number, **(match or {})}
    return {"match": matched, "response": {"usage": USAGE, **response}, **fields}


def tool(name, **arguments):
    return {"toolCalls": [{"name": name, "arguments": arguments}]}


THREE_TURNS = [
    turn(0, tool("write_file", path="hello.py", content='print("hello world")\n')),
    turn(1, {"content": "I run it.", **tool("shell", command="python3 hello.py")}),
    turn(2, {"content": FINAL}, match={"toolResultContains": "hello world"}),
]


@pytest.fixture
def aimock(tmp_path):
    """Starts servers of it."""
    running = []

    def start(*fixtures):
        running.append(Aimock(tmp_path, list(fixtures)).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture(params=["openai", "anthropic"])
def model(request):
    def choose(server):
        url = server.url if request.param == "anthropic" else f"{server.url}/v1"
        return ModelChoice(f"{request.param}:made-up", "model", base_url=url, api_key="key", is_own_url=True)

    return choose


async def test_a_task_of_three_turns_is_done(bench, aimock, model):
    server = aimock(*THREE_TURNS)

    outcome = await bench.run(GOAL, model=model(server))

    assert (outcome.is_completed, outcome.result) == (True, FINAL)
    assert len(server.journal) == 3
    events = await bench.events()
    assert_true_story(events)
    assert texts_of(events) == ["I run it.", FINAL]
    assert [event["ok"] for event in events if event["type"] == "tool.finished"] == [True, True]
    assert (bench.work_dir / "hello.py").read_text() == 'print("hello world")\n'
    used = {name: outcome.usage[name] for name in ("requests", "input_tokens", "output_tokens", "cost_usd")}
    assert used == {"requests": 3, "input_tokens": 300, "output_tokens": 60, "cost_usd": None}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("rateLimitRate", "model_rate_limited"),
        ("dropRate", "model_unavailable"),
        ("malformedRate", "model_error"),
        ("disconnectRate", "model_unreachable"),
    ],
)
async def test_a_disturbed_server_is_asked_again(bench, aimock, model, monkeypatch, fault, code):
    monkeypatch.setattr("beray.server.agent.models.faults.FIRST_WAIT_SECONDS", 1.0)  # time to let it recover
    server = aimock(*THREE_TURNS)
    server.disturb(**{fault: 1})
    running = asyncio.create_task(bench.run(GOAL, model=model(server)))
    await until(lambda: bench.events("model.retry"))

    server.disturb()
    outcome = await running

    assert (outcome.is_completed, outcome.result) == (True, FINAL), outcome.error
    retries = await bench.events("model.retry")
    assert {event["code"] for event in retries} == {code}
    assert_true_story(await bench.events())
    assert outcome.usage["requests"] == 3 + len(retries)


async def test_a_cut_stream_is_taken_back(bench, aimock, model):
    server = aimock(
        turn(0, {"content": LONG}, match={"sequenceIndex": 0}, truncateAfterChunks=30),
        turn(0, {"content": FINAL}, match={"sequenceIndex": 1}),
    )

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == FINAL
    events = await bench.events()
    assert_true_story(events)
    assert texts_of(events) == [FINAL]
    assert Counter(event["type"] for event in events)["model.retry"] == 1


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, {"message": "no such key", "type": "authentication_error"}, "model_auth"),
        (404, {"message": "no such model", "type": "not_found_error"}, "model_not_found"),
    ],
)
async def test_a_lasting_fault_ends_the_task_at_once(bench, aimock, model, status, error, code):
    server = aimock(turn(0, {"error": error, "status": status}))

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.error["code"] == code
    assert len(server.journal) == 1
