"""What providers need to cache a prompt: requests that begin alike, and where it has to be asked for, the wish."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from beray.server.agent.models.choice import ModelChoice
from tests.support.scripted_model import Reply, call, sequence, turns

GOAL = "Do it in steps."


def choice(base_url: str, **changes: Any) -> ModelChoice:
    values = {"base_url": base_url, "api_key": "key", "is_own_url": True}
    return ModelChoice(**{"name": "openai:scripted", "kind": "model", **values, **changes})


@pytest.mark.parametrize(
    "script",
    [
        turns(
            Reply("I start.", calls=[call("shell", command="echo one; cd /tmp"), call("update_plan", items=[])]),
            Reply(calls=[call("nonsense"), call("shell", command="false")]),
            Reply(calls=[call("shell", command="sleep 0.1", background=True)]),
            Reply(calls=[call("shell", command="sleep 0.3")]),
            Reply("Done."),
        ),
        sequence(Reply(calls=[call("shell", command="true")]), Reply(), Reply(), Reply("Done.")),
        sequence(Reply(calls=[call("shell", command="true")]), Reply("cut", cuts_after=1), Reply("Done.")),
    ],
    ids=["tools", "empty answers", "a cut answer"],
)
async def test_each_request_begins_with_the_whole_one_before(bench, scripted, script):
    server = scripted(script)

    outcome = await bench.run(GOAL, model=choice(server.base_url))

    assert outcome.is_completed
    for before, after in zip(server.requests, server.requests[1:], strict=False):
        assert json.dumps(after["tools"]) == json.dumps(before["tools"])
        assert json.dumps(after["messages"][: len(before["messages"])]) == json.dumps(before["messages"])
        assert {**after, "messages": []} == {**before, "messages": []}


async def test_requests_of_a_task_share_a_key_at_openai_itself(bench, scripted):
    server = scripted(turns(Reply(calls=[call("shell", command="true")]), Reply("Done.")))

    await bench.run(GOAL, model=choice(server.base_url, is_own_url=False))

    assert [request["prompt_cache_key"] for request in server.requests] == ["beray-task-1"] * 2


@pytest.mark.parametrize("name", ["openai:scripted", "deepseek:scripted", "llamacpp:scripted", "zhipu:scripted"])
async def test_servers_that_may_not_know_the_key_are_not_sent_it(bench, scripted, name):
    server = scripted(sequence(Reply("Done.")))

    await bench.run(GOAL, model=choice(server.base_url, name=name))

    assert "prompt_cache_key" not in server.requests[0]


@pytest.fixture
async def anthropic() -> AsyncIterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A server that refuses Anthropic's requests, and what it was sent: head and body."""
    seen: list[tuple[str, dict[str, Any]]] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        seen.append((head, json.loads(await reader.readexactly(length))))
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        body = json.dumps({"type": "error", "error": error}).encode()
        head = f"HTTP/1.1 401 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    server.close()
    await server.wait_closed()


async def test_anthropic_is_asked_to_cache_tools_instructions_and_conversation(bench, anthropic):
    base_url, seen = anthropic

    outcome = await bench.run(GOAL, model=choice(base_url, name="anthropic:claude-sonnet-5-5"))

    assert outcome.error["code"] == "model_auth"
    [(head, request)] = seen
    assert head.startswith("POST /v1/messages")
    assert "Bearer key" in head
    marked = {"type": "ephemeral", "ttl": "5m"}
    assert request["tools"][-1]["cache_control"] == marked
    assert request["system"][-1]["cache_control"] == marked
    assert request["messages"][-1]["content"][-1]["cache_control"] == marked
    assert request["stream"] is True
