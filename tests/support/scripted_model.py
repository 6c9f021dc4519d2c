"""A model server on loopback that plays a script over OpenAI's wire or Anthropic's, as a fixture or as a process.

with ScriptedModel(turns(Reply(calls=[call("write_file", path="a", content="b")]), Reply("done"))) as model:
    ...  # BERAY_MODEL=openai:scripted, BERAY_MODEL_BASE_URL=model.base_url
    model.requests  # what it was asked

python -m tests.support.scripted_model --port 0 --script hello
"""

import argparse
import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.support.anthropic_wire import ANTHROPIC
from tests.support.model_wire import OPENAI, Said, Wire
from tests.support.waiting import until

NAME = "scripted"  # no real model's name, for which the client library would know a price
HANG_SECONDS = 60  # a reply that hangs does so until the client goes away, at most this long


class Hold:
    """Keeps replies back until the test lets them go."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def let_go(self) -> None:
        self._gone.set()

    async def pass_by(self) -> None:
        """Wait for that."""
        try:
            await until(self._gone.is_set, seconds=HANG_SECONDS, what="the test to let a reply go")
        except AssertionError as late:
            raise ConnectionError from late


@dataclass(frozen=True)
class Reply:
    """One answer of the model.

    Attributes:
        text: Text, or its pieces.
        calls: Tool calls, made with `call`.
        usage: Tokens in and out; None: not told.
        cached: Of the tokens in, those said to have been cached.
        status: An HTTP error instead of an answer.
        error: Body of the error.
        headers: Further headers.
        cuts_after: Break the connection after this many chunks.
        hangs_after: Send nothing more after this many chunks.
        held: Send no more than `held_after` chunks before this is let go.
        garbles_after: Send what is no JSON after this many chunks.
        garbles_with: Send this JSON then; bytes as they are.
        floods_after: Send what it garbles with again and again after this many chunks, without ever ending.
        pause_seconds: Between chunks.
        finish_reason: Why it ended; default by what it holds.
    """

    text: str | Sequence[str] = ()
    calls: Sequence[dict[str, Any]] = ()
    usage: tuple[int, int] | None = (100, 20)
    cached: int = 0
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cuts_after: int | None = None
    hangs_after: int | None = None
    held: Hold | None = None
    held_after: int = 0
    garbles_after: int | None = None
    garbles_with: Any = None
    floods_after: int | None = None
    pause_seconds: float = 0
    finish_reason: str | None = None

    def chunks(self) -> list[dict[str, Any]]:
        """The deltas of the stream."""
        pieces = [self.text] if isinstance(self.text, str) else list(self.text)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces]
        for index, made in enumerate(self.calls):
            function = {"name": made["name"], "arguments": ""}
            head = {"index": index, "id": made["id"], "type": "function", "function": function}
            deltas.append({"tool_calls": [head]})
            arguments = made["arguments"]
            half = len(arguments) // 2
            for part in (arguments[:half], arguments[half:]):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        return deltas

    def said(self, model: str) -> Said:
        """For a wire, by the model of this name."""
        reason = self.finish_reason or ("tool_calls" if self.calls else "stop")
        return Said(model, self.chunks(), self.usage, self.cached, reason)


def call(name: str, /, *, raw: str | None = None, id: str = "call_0", **args: Any) -> dict[str, Any]:
    """A tool call; `raw` are arguments as they are, valid JSON or not. Ids repeat, as some servers' do."""
    return {"name": name, "id": id, "arguments": json.dumps(args) if raw is None else raw}


def failure(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    """An HTTP error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, error=body, headers=named)


Script = Callable[[dict[str, Any], int], Reply]
"""`script(request, number)`: the reply to the request with this number, counted from 0."""


def turns(*replies: Reply) -> Script:
    """Reply by how far the conversation is: a request repeated, or of another task, gets its own reply."""

    def script(request: dict[str, Any], number: int) -> Reply:
        answered = sum(message["role"] == "assistant" for message in request["messages"])
        return replies[min(answered, len(replies) - 1)]

    return script


def sequence(*replies: Reply) -> Script:
    """Reply in the order of requests; the last for ever."""
    return lambda request, number: replies[min(number, len(replies) - 1)]


def results_of(request: dict[str, Any]) -> list[str]:
    """What the tools came to in the conversation so far, as a request of either wire tells it."""
    found = []
    for message in request["messages"]:
        if message["role"] == "tool":
            found.append(_text_of(message["content"]))
        elif isinstance(message["content"], list):
            blocks = [block for block in message["content"] if block["type"] == "tool_result"]
            found += [_text_of(block["content"]) for block in blocks]
    return found


def _text_of(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


HELLO = turns(
    Reply(calls=[call("write_file", path="hello.py", content='print("hello world")\n')]),
    Reply(["I run ", "it."], calls=[call("shell", command="python3 hello.py")]),
    Reply(calls=[call("finish", summary="hello.py prints hello world.", files=["hello.py"])]),
)
TWENTY_STEPS = turns(
    *(Reply(calls=[call("update_plan", items=[{"text": f"Step {step}", "status": "done"}])]) for step in range(20)),
    Reply("All twenty steps are done."),
)


def one_command(request: dict[str, Any], number: int) -> Reply:
    """Write a script and run it by one command, with the shell tool that is offered; then say so."""
    if any(message["role"] == "assistant" for message in request["messages"]):
        return Reply(["hello.py ", "prints ", "hello world."])
    command = "printf 'print(\"hello world\")\\n' > hello.py && python3 hello.py"
    offered = [tool["function"]["name"] for tool in request["tools"]]
    if "shell" in offered:
        return Reply(calls=[call("shell", command=command)])
    return Reply(calls=[call("run_shell_command", args=["bash", "-c", command])])  # Agno's


SCRIPTS = {
    "hello": HELLO,
    "one command": one_command,
    "text": turns(Reply(["Just ", "text."])),
    "twenty steps": TWENTY_STEPS,
}


class ScriptedModel:
    """The server, in a thread of its own. Use it as a context manager."""

    def __init__(self, script: Script, *, port: int = 0, models: Sequence[str] = (NAME,)) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.connected = 0
        self._models = models
        self._port = port
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="scripted-model", daemon=True)
        self._ending: asyncio.Event | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> "ScriptedModel":
        self._thread.start()
        assert self._ready.wait(10), "the scripted model did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ending is not None
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the scripted model did not end"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._ending = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            self.connected += 1
            try:
                await self._converse(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client has gone, or the test has ended
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ending.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            if lines[0].startswith("GET /v1/models "):
                await _answer(writer, 200, {"object": "list", "data": [{"id": name} for name in self._models]})
            elif lines[0].startswith("POST /v1/chat/completions "):
                self.keys.append(headers.get("authorization", ""))
                await self._play(json.loads(body), reader, writer, wire=OPENAI)
            elif lines[0].startswith(("POST /v1/messages ", "POST /v1/messages?")):
                self.keys.append(headers.get("x-api-key", ""))
                await self._play(json.loads(body), reader, writer, wire=ANTHROPIC)
            else:
                await _answer(writer, 404, {"error": {"message": "not here"}})

    async def _play(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, wire: Wire
    ) -> None:
        number = len(self.requests)
        self.requests.append(request)
        reply = self.script(request, number)
        if reply.status != 200:
            await _answer(writer, *wire.error(reply.status, reply.error), reply.headers)
            return
        assert request["stream"] is True, "the agent always streams"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        said = reply.said(request.get("model", NAME))
        frames = [*wire.content(said), None]
        for index, frame in enumerate(frames):
            if index == reply.cuts_after:
                writer.transport.abort()
                raise ConnectionError
            if index == reply.hangs_after:
                await asyncio.wait_for(reader.read(1), HANG_SECONDS)
                raise ConnectionError
            if reply.held is not None and index == reply.held_after:
                await reply.held.pass_by()
            if index == reply.garbles_after:
                await _chunk(writer, _garbled(wire, reply))
            while index == reply.floods_after:
                await _chunk(writer, _garbled(wire, reply))
            if frame is not None:
                await _chunk(writer, frame)
                await asyncio.sleep(reply.pause_seconds)
        for frame in wire.end(said):
            await _chunk(writer, frame)
        await _chunk(writer, b"")


def _garbled(wire: Wire, reply: Reply) -> bytes:
    if reply.garbles_with is None:
        return wire.garbled
    if isinstance(reply.garbles_with, bytes):
        return reply.garbles_with
    head = wire.garbled.partition(b"data: ")[0]
    return head + b"data: " + json.dumps(reply.garbles_with).encode() + b"\n\n"


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def _answer(
    writer: asyncio.StreamWriter, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    content = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{extra}\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


def main() -> None:
    """Serve a named script until killed; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", choices=SCRIPTS, default="hello")
    options = parser.parse_args()
    with ScriptedModel(SCRIPTS[options.script], port=options.port) as model:
        print(model.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
