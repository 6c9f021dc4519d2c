"""MCP servers on loopback: one of the protocol's own library, and one that does what it is told to."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

Answer = Callable[[dict[str, Any]], bytes | None]
"""From a message to the whole HTTP answer; None: never answer."""

TOOLS = [{"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}]


@contextlib.asynccontextmanager
async def library_server() -> AsyncIterator[str]:
    """The URL of a server made with the protocol's own library, with the tools `add` and `shout`."""
    server = MCPServer("calculator")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def shout(text: str) -> str:
        """Say it loudly."""
        return text.upper()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_config=None, lifespan="on", ws="none"))
    web.capture_signals = contextlib.nullcontext  # type: ignore[method-assign] - the test's signals are its own
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        web.should_exit = True
        web.force_exit = True
        await serving
        listener.close()


def reply(body: Any, *, status: str = "200 OK", **headers: str) -> bytes:
    """An HTTP answer; the body as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    shown = {"Content-Type": "application/json", "Content-Length": str(len(content)), **_dashed(headers)}
    return f"HTTP/1.1 {status}\r\n{_lines(shown)}\r\n".encode() + content


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def result(message: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": message["id"], "result": body}


def in_order(message: dict[str, Any]) -> bytes:
    """What a server without faults answers."""
    if "id" not in message:
        return reply(b"", status="202 Accepted")
    if message["method"] == "initialize":
        version = message["params"]["protocolVersion"]
        body = {"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "raw", "version": "1"}}
        return reply(result(message, body), Mcp_Session_Id="session-1")
    if message["method"] == "tools/list":
        return reply(result(message, {"tools": TOOLS}))
    return reply(result(message, {"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]}))


@dataclass
class RawServer:
    """A server that answers each message as `answer` says.

    Attributes:
        others: What it answers to other methods than POST.
        heads: Of the requests, the headers by their names in small letters, and the first line as `request`.
        messages: What was posted.
    """

    answer: Answer = in_order
    others: bytes = field(default_factory=lambda: reply(b"", status="405 Method Not Allowed"))
    heads: list[dict[str, str]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["RawServer"]:
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._converse(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client has gone, or the test has ended
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/mcp" if tls is None else f"https://localhost:{port}/mcp"
        try:
            yield self
        finally:
            server.close()
            for task in list(connections):
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.heads.append({**head, "request": first})
            body = await reader.readexactly(int(head.get("content-length", "0")))
            answer: bytes | None = self.others
            if first.startswith("POST"):
                self.messages.append(json.loads(body))
                answer = self.answer(self.messages[-1])
            if answer is None:
                await asyncio.Event().wait()
            assert answer is not None
            writer.write(answer)
            await writer.drain()
