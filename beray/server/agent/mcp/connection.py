"""A connection to one MCP server, whatever carries its messages. Imports the protocol's library.

The library's session has to be left by the task that entered it, so that a task of its own keeps it; requests come from
others.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio
import httpx2
import mcp_types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from pydantic import BaseModel

from beray import __version__
from beray.server.agent.tools.base import ToolError

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, WriteStream  # the library has no public name for its streams

CLOSE_SECONDS: Final = 0.6  # to leave politely; then it is ended as it is
END_SECONDS: Final = 40.0  # for what must be ended in any case; a container's engine may be slow
MOST_MESSAGE_BYTES: Final = 4 << 20
MOST_ASKED: Final = 2000  # requests of one server; a ping every 10 s makes 360 an hour
MOST_PAGES: Final = 32  # of the list of tools
MOST_LISTED: Final = 1024  # tools looked at

_ME: Final = mcp_types.Implementation(name="beray", version=__version__)


@dataclass(frozen=True)
class Streams:
    """What carries messages.

    Attributes:
        gone: Set when nothing more will come.
    """

    incoming: "ReadStream[SessionMessage | Exception]"
    outgoing: "WriteStream[SessionMessage]"
    gone: asyncio.Event


ResultT = TypeVar("ResultT", bound=BaseModel)

Carry = Callable[[], AbstractAsyncContextManager[Streams]]


class ServerLost(Exception):
    """The server has ended, can't be reached or does not speak the protocol; the text says which, in a clause.

    The text is never the server's, for it may come to stand among the model's instructions.
    """


class ServerRefused(Exception):
    """The server answered with an error; the text is its own."""


class Connection:
    """One connection, from `open` to `close`.

    Args:
        carry: What carries its messages.
    """

    def __init__(self, carry: Carry) -> None:
        self._carry = carry
        self._leave = asyncio.Event()
        self._session: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server is there, as far as is known."""
        return self._keeper is not None and not self._keeper.done() and not self._leave.is_set()

    async def open(self) -> None:
        """Start the server, or connect to it, and greet it. However this ends, the connection is to be closed.

        Raises:
            ServerLost: That can't be done.
        """
        self._keeper = asyncio.create_task(self._keep())
        await asyncio.shield(self._session)

    async def list_tools(self) -> list[mcp_types.Tool]:
        """All tools it offers, up to a bound.

        Raises:
            ServerLost: It has ended, or answers with something else.
            ServerRefused: It has none to offer.
        """
        tools: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            params = None if cursor is None else mcp_types.PaginatedRequestParams(cursor=cursor)
            page = await self._ask(mcp_types.ListToolsRequest(params=params), mcp_types.ListToolsResult)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or len(tools) >= MOST_LISTED:
                break
        return tools[:MOST_LISTED]

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """What the tool answers. Not by the session's method of that name, which checks the answer against the server's
        own schema: patterns in it could keep this process busy for ever.

        Raises:
            ServerLost: The server has ended; whether it has done something is not known.
            ServerRefused: It answered with an error of the protocol.
        """
        params = mcp_types.CallToolRequestParams(name=name, arguments=arguments)
        return await self._ask(mcp_types.CallToolRequest(params=params), mcp_types.CallToolResult)

    async def close(self) -> None:
        """Leave the server; returns when nothing of it is left here. May be called twice."""
        self._leave.set()
        if self._keeper is None:
            return
        await asyncio.wait({self._keeper}, timeout=CLOSE_SECONDS)
        self._keeper.cancel()
        await asyncio.wait({self._keeper}, timeout=END_SECONDS)

    async def _ask(self, request: mcp_types.Request[Any, Any], result: type[ResultT]) -> ResultT:
        session = await asyncio.shield(self._session)
        try:
            return await session.send_request(request, result)
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED or not self.is_open:
                raise ServerLost("it has ended, or the connection to it was lost") from error
            raise ServerRefused(error.message) from error
        except ValueError as error:  # the library's checks
            raise ServerLost("it answered with something else than the protocol allows") from error

    async def _keep(self) -> None:
        try:
            await self._converse()
        except asyncio.CancelledError:
            self._fail("the connection was closed")
            raise
        except Exception as error:  # the edge of a task nobody awaits: the session's users are told
            self._fail(*_reason(error))
        finally:
            self._leave.set()
            self._fail("it ended before it had answered")

    async def _converse(self) -> None:
        async with (
            self._carry() as streams,
            ClientSession(_Patience(streams), streams.outgoing, client_info=_ME) as session,
        ):
            await _greet(session)
            self._session.set_result(session)
            await _first(self._leave, streams.gone)
            self._leave.set()

    def _fail(self, reason: str, cause: BaseException | None = None) -> None:
        if not self._session.done():
            lost = ServerLost(reason)
            lost.__cause__ = cause
            self._session.set_exception(lost)
            self._session.exception()  # nobody may be waiting any more


class _Patience:
    """A server's messages, until it asks too much.

    Each request of a server's is a task here until the answer is taken; one that asks on and takes no answer would fill
    the memory. Notifications are of no use here, and are left out before anybody looks into them.
    """

    def __init__(self, streams: Streams) -> None:
        self._incoming = streams.incoming
        self._gone = streams.gone
        self._asked = 0

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        await self._incoming.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while isinstance(item := await self._incoming.__anext__(), SessionMessage):
            if isinstance(item.message, mcp_types.JSONRPCNotification):
                continue
            if isinstance(item.message, mcp_types.JSONRPCRequest):
                self._asked += 1
            break
        if self._asked > MOST_ASKED:
            self._gone.set()
            raise StopAsyncIteration
        return item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *what: object) -> None:
        await self.aclose()


async def _greet(session: ClientSession) -> None:
    """By the handshake, which nearly all servers know; else as the revision without one has it.

    Not the other way round: what a server of the handshake does with an unknown first request is its own affair.
    """
    try:
        await session.initialize()
    except MCPError as error:
        if error.code == mcp_types.CONNECTION_CLOSED:
            raise
        await session.discover()


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _reason(error: BaseException) -> tuple[str, BaseException]:
    """Why it failed, in a clause, and what was at the bottom of it: the library wraps its tasks' errors into groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        is_gone = error.code == mcp_types.CONNECTION_CLOSED
        return "it ended before it had answered" if is_gone else "it answered our greeting with an error", error
    if isinstance(error, ToolError | httpx2.NetworkError | httpx2.TimeoutException):
        return str(error).rstrip("."), error
    return f"it could not be spoken with ({type(error).__name__})", error
