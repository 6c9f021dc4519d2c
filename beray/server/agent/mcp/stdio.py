"""A connection to an MCP server that is a command in the task's sandbox. Imports the protocol's library.

Its standard streams carry one JSON message a line. What is none is left out, since some servers print more than
messages there; what is an answer nevertheless, but can't be read, fails its call at once. A line longer than any
message may be ends the connection.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from beray.server.agent.mcp.config import Command, McpServer
from beray.server.agent.mcp.connection import MOST_MESSAGE_BYTES, Streams
from beray.server.agent.nesting import answered_id
from beray.server.agent.tools.base import Toolbox
from beray.server.agent.tools.output import HeadAndTail
from beray.server.agent.tools.process import bounded, start_process
from beray.server.sandbox.base import InputClosed, Process, SandboxError, Spec

READ_PAUSE_SECONDS: Final = 0.02  # between two reads of up to 64 KiB: one server can't keep this process busy
LEAVE_SECONDS: Final = 0.2  # for a server to end by itself when its input has ended
STDERR_BYTES: Final = 2000  # of what it says of its troubles, for the operator's log
LEAST_SECRET: Final = 4  # characters; what is shorter is none, and may be part of any word
MOST_UNSENT: Final = 16  # messages; a server that reads nothing must not hold up who gives a call up
UNREADABLE: Final = "its answer can't be read: it is no JSON, nested too deep, or holds half a character"

log = logging.getLogger(__name__)


@asynccontextmanager
async def command_streams(server: McpServer, command: Command, box: Toolbox) -> AsyncIterator[Streams]:
    """Messages to and from a server that is started for this, and ended at the end.

    Raises:
        ToolError: It could not be started.
    """
    process = await start_process(box, await bounded(box, _spec(command, box)))
    said = HeadAndTail(head_bytes=0, most_bytes=STDERR_BYTES)
    gone = asyncio.Event()
    has_left = True
    incoming_end, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outgoing_end = anyio.create_memory_object_stream[SessionMessage](MOST_UNSENT)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_read, process, incoming_end, said, gone)
            group.start_soon(_write, process, outgoing_end)
            try:
                yield Streams(incoming, outgoing, gone)
            finally:
                has_left = not gone.is_set()
                group.cancel_scope.cancel()
    finally:
        for stream in (incoming_end, incoming, outgoing, outgoing_end):
            stream.close()
        await _ended(asyncio.create_task(_end(process, box)))
        if not has_left:
            log.warning("MCP server %s ended by itself; its last words: %s", server.name, _last_words(command, said))


def _spec(command: Command, box: Toolbox) -> Spec:
    """For the rest of the run; its variables are its own, and no other command's."""
    run = box.run
    seconds_left = max(1.0, box.ends_at - time.monotonic())
    return Spec(
        argv=list(command.argv),
        work_dir=run.work_dir.path,
        env=dict(command.env),
        uid=run.uid,
        has_input=True,
        limits=replace(run.sandbox_limits, wall_seconds=seconds_left),
    )


async def _read(
    process: Process,
    messages: MemoryObjectSendStream[SessionMessage | Exception],
    said: HeadAndTail,
    gone: asyncio.Event,
) -> None:
    """Pass on its messages, to the end of its output."""
    lines = LineCutter(MOST_MESSAGE_BYTES)
    try:
        while (piece := await process.read()) is not None:
            name, content = piece
            if name == "stderr":
                said.add(content)
            else:
                await _pass_on(lines.feed(content), messages)
            await asyncio.sleep(READ_PAUSE_SECONDS)
    except LineTooLong:
        said.add(b"(a line of its output was too long)")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):  # the session has been left
        pass
    finally:
        gone.set()
        messages.close()


async def _pass_on(lines: Iterable[bytes], messages: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    for line in lines:
        if (message := _parse(line)) is not None:
            await messages.send(message)


async def _write(process: Process, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
    async for message in messages:
        line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await process.write(line.encode() + b"\n")
        except InputClosed:  # its end is seen where its output ends
            return


def _parse(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        asked = answered_id(line.decode("utf-8", "replace"))
    if asked is None:
        return None
    error = ErrorData(code=PARSE_ERROR, message=UNREADABLE)
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=asked, error=error))


async def _ended(ending: "asyncio.Task[None]") -> None:
    """Wait for it; whoever is in a hurry waits too, for nothing may be left when the connection is closed."""
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait({ending})
        raise
    except SandboxError:  # it was tried for long enough
        log.exception("an MCP server could not be ended")


async def _end(process: Process, box: Toolbox) -> None:
    """Let it end by itself for a moment, then end it. What it still prints is thrown away."""
    await process.close_input()
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            while await process.read() is not None:
                pass
            how = await process.wait()
        if how.disk_bytes is not None:
            box.progress.disk_bytes = how.disk_bytes
    except TimeoutError:
        pass
    finally:
        await process.kill()


def _last_words(command: Command, said: HeadAndTail) -> str:
    """For the log, in one line. They may hold what the server's variables do: that is blacked out."""
    words = said.text("")
    for value in command.env.values():
        if len(value) >= LEAST_SECRET:
            words = words.replace(value, "***")
    return repr(words)


class LineTooLong(Exception):
    """A line is longer than any is."""


class LineCutter:
    """Cuts a stream of bytes into lines.

    Args:
        most_bytes: Longest line that is taken.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are whole by now, without their ends.

        Raises:
            LineTooLong: There is no end in sight.
        """
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part)
            yield bytes(self._begun)
            self._begun.clear()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._begun += part
        if len(self._begun) > self._most_bytes:
            raise LineTooLong
