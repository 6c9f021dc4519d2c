"""How bytes reach a watcher without anybody waiting for it.

Cheapest first. `TransportOutlet` writes to the connection's transport, which uvicorn's `send` shows to the outermost
ASGI callable only (hence `beray.send` in the scope): 0.6 of the processor time of `SteppedOutlet`, which runs `send`
until it would wait. `CursorOutlet` can only wait: its watcher reads the store (perf: 1.8 times the transport's).
"""

import asyncio
import inspect
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Protocol

from starlette.types import Message, Send

FULL_BYTES: Final = 256 << 10  # unsent: a reader so slow is written to no further, it reads the store at its own pace

log = logging.getLogger("beray.stream")


class Chunk:
    """Bytes for many watchers, encoded once.

    Args:
        data: Whole frames, or a comment.
        before: The `seq` of the last event before it.
        last: The `seq` of its last event; of a comment, the same as `before`.
        is_end: Whether the stream ends with it.

    Attributes:
        http: The data as a chunk of a chunked HTTP/1.1 body (RFC 9112, 7.1).
        message: The data as an ASGI message.
    """

    __slots__ = ("before", "http", "is_end", "last", "message")

    def __init__(self, data: bytes, before: int, last: int, *, is_end: bool = False) -> None:
        self.before = before
        self.last = last
        self.is_end = is_end
        self.http = b"%x\r\n%b\r\n" % (len(data), data)
        self.message: Message = {"type": "http.response.body", "body": data, "more_body": True}


class Taken(Enum):
    """What became of a chunk: it went out, or nothing did, or it will when its reader reads on."""

    YES = auto()
    NO = auto()
    LATER = auto()


class Outlet(Protocol):
    """The way to one watcher."""

    can_push: bool

    @property
    def write(self) -> Callable[[Chunk], Taken]:
        """Sends a chunk, without waiting. After `LATER`, call `finish` before anything else."""
        ...

    async def finish(self) -> None:
        """Wait until what was begun has gone out."""
        ...

    def abort(self) -> None:
        """Cut the connection, where that can be done."""
        ...


class TransportOutlet:
    """Writes to the transport of the connection."""

    __slots__ = ("_transport", "write")

    can_push = True

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = _writer(transport)

    async def finish(self) -> None:
        """See `Outlet`."""

    def abort(self) -> None:
        """See `Outlet`."""
        self._transport.abort()


def _writer(transport: asyncio.Transport) -> Callable[[Chunk], Taken]:
    """`Outlet.write`, as a function whose names are at hand: it is called for each event and watcher."""
    unsent_bytes, write = transport.get_write_buffer_size, transport.write
    yes = Taken.YES  # a look at an enumeration's member costs a tenth of a call

    def write_chunk(chunk: Chunk) -> Taken:
        if unsent_bytes() > FULL_BYTES:
            return Taken.NO
        try:
            write(chunk.http)
        except RuntimeError:  # closed; its request is about to be told
            log.debug("writing to a closed connection", exc_info=True)
        return yes

    return write_chunk


class SteppedOutlet:
    """Runs the server's `send` by hand; as long as it has not to wait, it is done when it returns."""

    __slots__ = ("_begun", "_send")

    can_push = True

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun: tuple[Coroutine[Any, Any, None], Any] | None = None

    def write(self, chunk: Chunk) -> Taken:
        """See `Outlet`."""
        sending: Any = self._send(chunk.message)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            return Taken.YES
        self._begun = sending, waits_for
        return Taken.LATER

    async def finish(self) -> None:
        """See `Outlet`."""
        if self._begun is not None:
            sending, waits_for = self._begun
            self._begun = None
            await _go_on(sending, waits_for)

    def abort(self) -> None:
        """See `Outlet`."""


class CursorOutlet:
    """Nothing can be sent without waiting."""

    __slots__ = ()

    can_push = False

    def write(self, chunk: Chunk) -> Taken:
        """See `Outlet`."""
        return Taken.NO

    async def finish(self) -> None:
        """See `Outlet`."""

    def abort(self) -> None:
        """See `Outlet`."""


async def open_outlet(send: Send, first: bytes) -> Outlet:
    """The best way to a watcher whose answer has been started; `first` are its first bytes, sent on the way.

    Args:
        send: The server's own, if it can be had.
        first: Anything.
    """
    sending: Any = send({"type": "http.response.body", "body": first, "more_body": True})
    is_coroutine = inspect.iscoroutine(sending)
    await sending
    cycle = getattr(send, "__self__", None)
    transport: Any = getattr(cycle, "transport", None)
    if getattr(cycle, "chunked_encoding", None) is True and _is_transport(transport):
        return TransportOutlet(transport)
    return SteppedOutlet(send) if is_coroutine else CursorOutlet()


class Kept(Protocol):
    """What goes on with an answer when the application has returned."""

    def begin(self) -> None:
        """The application has returned."""
        ...

    def lost(self) -> None:
        """The client has gone."""
        ...


def find_keeper(send: Send) -> Callable[[Kept], None] | None:
    """What keeps the answer, where the server's connection can (`connection.py`)."""
    on_response = getattr(getattr(send, "__self__", None), "on_response", None)
    keep: Callable[[Kept], None] | None = getattr(getattr(on_response, "__self__", None), "keep_answer", None)
    return keep


def _is_transport(found: object) -> bool:
    return all(callable(getattr(found, name, None)) for name in ("write", "get_write_buffer_size", "is_closing"))


@types.coroutine
def _go_on(begun: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Await the rest of a coroutine that has been run by hand until it waited for something."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # a cancellation, mostly: it belongs to what waits
            step = partial(begun.throw, error)
        else:
            step = partial(begun.send, sent)
        try:
            waits_for = step()
        except StopIteration:
            return
