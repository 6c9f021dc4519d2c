"""MCP servers that are reached by HTTP, and the library's own servers."""

import sys

import pytest

from beray.server.agent.mcp.config import Command, Endpoint, McpServer
from beray.server.agent.mcp.connection import MOST_PAGES, Connection, ServerLost
from beray.server.agent.mcp.http import endpoint_streams
from beray.server.agent.mcp.source import McpSource
from tests.server.agent.test_loop import choice
from tests.server.agent.test_mcp import instructions, offered, told
from tests.support.certificates import tls_contexts
from tests.support.mcp_http import TOOLS, RawServer, in_order, library_server, reply, result
from tests.support.scripted_model import Reply, call, turns

LIBRARY_PROGRAM = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("calculator")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run()
"""


def source(url, *, headers=None, **options):
    return McpSource(McpServer("web", Endpoint(url, headers or {}), **options))


@pytest.fixture
def play(bench, scripted):
    async def run(*calls, sources):
        server = scripted(turns(*(Reply(calls=[made]) for made in calls), Reply("done")))
        names = tuple(one.name for one in sources)
        outcome = await bench.run("go", model=choice(server), tools=names, sources=sources)
        assert outcome.result == "done", outcome
        return server

    return run


def calls_fail_with(answer):
    """A server in order but for its answers to calls."""
    return RawServer(lambda message: answer(message) if message.get("method") == "tools/call" else in_order(message))


async def test_a_server_of_the_librarys_is_used_over_http(play):
    async with library_server() as url:
        server = await play(call("web_add", a=20, b=22), call("web_shout", text="hi"), sources=(source(url),))

    assert offered(server) == ["web_add", "web_shout"]
    assert told(server) == ["42", "HI"]


async def test_a_server_of_the_librarys_is_used_over_standard_streams(play):
    used = McpSource(McpServer("calc", Command((sys.executable, "-c", LIBRARY_PROGRAM))))

    server = await play(call("calc_add", a=20, b=22), call("calc_add", a="many", b=1), sources=(used,))

    assert told(server)[0] == "42"
    assert told(server)[1].startswith("Error: ")


async def test_headers_go_to_the_server_and_nowhere_else(play, bench, caplog):
    caplog.set_level("DEBUG")
    async with RawServer().running() as raw:
        server = await play(
            call("web_echo", text="hello"), sources=(source(raw.url, headers={"Authorization": "Bearer canary-55"}),)
        )

    assert told(server) == ["hello"]
    assert {head["authorization"] for head in raw.heads} == {"Bearer canary-55"}
    assert {head["accept-encoding"] for head in raw.heads} == {"identity"}
    assert "canary-55" not in str(await bench.events())
    assert "canary-55" not in caplog.text
    assert "canary-55" not in repr(source(raw.url, headers={"Authorization": "Bearer canary-55"}))


async def test_the_session_is_ended_with_the_run(play):
    async with RawServer().running() as raw:
        await play(call("web_echo", text="hello"), sources=(source(raw.url),))

    assert raw.heads[-1]["request"].startswith("DELETE /mcp")
    assert raw.heads[-1]["mcp-session-id"] == "session-1"


async def test_https_is_spoken_with_a_host_whose_certificate_is_believed(tmp_path):
    server_tls, client_tls = tls_contexts(tmp_path, "localhost")
    async with RawServer().running(server_tls) as raw:
        endpoint = Endpoint(raw.url)
        server = McpServer("web", endpoint)
        connection = Connection(lambda: endpoint_streams(server, endpoint, client_tls))
        await connection.open()
        answer = await connection.call_tool("echo", {"text": "safe"})
        await connection.close()
        stranger = Connection(lambda: endpoint_streams(server, endpoint))
        with pytest.raises(ServerLost, match="its certificate is not believed"):
            await stranger.open()
        await stranger.close()

    assert answer.content[0].text == "safe"


async def test_a_server_without_the_stream_of_its_own_news_is_used(play):
    """It answers 404 to what it does not know; that is no lost session."""

    async with RawServer(others=reply(b"", status="404 Not Found")).running() as raw:
        server = await play(call("web_echo", text="a"), call("web_echo", text="b"), sources=(source(raw.url),))

    assert told(server) == ["a", "b"]
    assert [message["method"] for message in raw.messages].count("initialize") == 1


async def test_a_server_that_knows_no_handshake_is_used(play):
    """As the protocol's newest revision has it: it is asked what it is, and each message says the revision."""
    about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}

    def answer(message):
        assert message["method"] != "notifications/initialized"
        if message["method"] == "initialize":
            return reply({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown"}})
        made = {"server/discover": about, "tools/list": {"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"}}
        body = made.get(message["method"]) or {"content": [{"type": "text", "text": "new"}]}
        return reply(result(message, {**body, "resultType": "complete"}))

    async with RawServer(answer).running() as raw:
        server = await play(call("web_echo", text="a"), sources=(source(raw.url),))

    assert told(server) == ["new"]
    assert raw.heads[-1]["mcp-protocol-version"] == "2026-07-28"


async def test_a_list_of_tools_without_end_is_cut(play):
    def answer(message):
        if message.get("method") != "tools/list":
            return in_order(message)
        return reply(result(message, {"tools": TOOLS, "nextCursor": "more"}))

    async with RawServer(answer).running() as raw:
        server = await play(sources=(source(raw.url),))

    assert offered(server) == ["web_echo"]
    assert [message["method"] for message in raw.messages].count("tools/list") == MOST_PAGES


async def test_a_redirect_to_another_host_is_not_followed(play):
    async with RawServer().running() as other, RawServer().running() as raw:
        raw.answer = lambda message: reply(b"", status="307 Temporary Redirect", Location=other.url)
        server = await play(sources=(source(raw.url),))

    assert other.heads == []
    assert "can't be had in this run: it answered our greeting with an error" in instructions(server, 0)


def event(data):
    return b"event: message\ndata: " + data + b"\n\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda message: reply(b"x" * (5 << 20)), "failed: it has ended, or the connection to it was lost"),
        (lambda message: reply(b"no json"), "Failed to parse JSON response"),
        (lambda message: reply({"jsonrpc": "2.0", "id": 99, "result": {}}), "did not answer within 1 s"),
        (lambda message: None, "did not answer within 1 s"),
        (lambda message: reply(b"?", status="500 Oops"), "Server returned an error response"),
        (lambda message: reply(b"\x1f\x8b", Content_Encoding="gzip"), "failed: it has ended, or the connection"),
        (lambda message: reply(b"<html>", Content_Type="text/html"), "Unexpected content type: text/html"),
        (lambda message: reply(result(message, {"content": 7})), "something else than the protocol allows"),
        (lambda message: reply(result(message, {"content": ["\ud83d"]})), "Failed to parse JSON response"),
        (lambda message: reply(b"[" * 100_000), "Failed to parse JSON response"),
        (lambda message: reply(event(b"[" * 100_000), Content_Type="text/event-stream"), "Failed to parse SSE"),
        (lambda message: reply(event(b'"\\ud83d"'), Content_Type="text/event-stream"), "Failed to parse SSE"),
    ],
    ids=[
        "large",
        "no-json",
        "wrong-id",
        "hangs",
        "500",
        "compressed",
        "html",
        "wrong-shape",
        "half a character",
        "deep",
        "deep event",
        "half a character in an event",
    ],
)
async def test_a_faulty_answer_fails_the_call_and_the_next_one_works(play, answer, reason):
    is_first = True

    def once(message):
        nonlocal is_first
        was_first, is_first = is_first, False
        return answer(message) if was_first else in_order(message)

    async with calls_fail_with(once).running() as raw:
        server = await play(
            call("web_echo", text="a"), call("web_echo", text="b"), sources=(source(raw.url, timeout_seconds=1),)
        )

    assert reason in told(server)[0]
    assert told(server)[1] == "b"


async def test_a_lost_session_is_begun_anew_by_the_next_call(play):
    """404 says that the session has ended, as after a restart of the server."""
    is_lost = True

    def once(message):
        nonlocal is_lost
        was_lost, is_lost = is_lost, False
        return reply(b"", status="404 Not Found") if was_lost else in_order(message)

    async with calls_fail_with(once).running() as raw:
        server = await play(call("web_echo", text="a"), call("web_echo", text="b"), sources=(source(raw.url),))

    assert told(server)[0].startswith("Error: The MCP server web failed")
    assert told(server)[1] == "b"
    assert [message["method"] for message in raw.messages].count("initialize") == 2


async def test_a_server_that_is_not_there_is_told_to_the_model(play):
    async with RawServer().running() as raw:
        url = raw.url

    server = await play(sources=(source(url),))

    assert "could not be connected to: Connection refused" in instructions(server, 0)
