"""How bytes reach a watcher without anybody waiting for it.

Cheapest first. `TransportOutlet` writes to the connection's transport, which uvicorn's `send` shows to the outermost
ASGI callable only (hence `beray.send` in the scope): 0.6 of the processor time of `SteppedOutlet`, which runs `send`
until it would wait. `CursorOutlet` can only wait: its watcher reads the store (perf: 1.8 times the transport's).
"""

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Protocol

from starlette.types import Message, Send

_TRANSPORT: Final = ("write", "get_write_buffer_size", "set_write_buffer_limits", "abort")
FULL_BYTES: Final = 256 << 10  # unsent: a reader so slow is written to no further, it reads the store at its own pace


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

    @property
    def is_comment(self) -> bool:
        """Whether it holds no event: it may be left out."""
        return self.last == self.before


class Taken(Enum):
    """What became of a chunk: it went out, or nothing did, or it will when its reader reads on."""

    YES = auto()
    NO = auto()
    LATER = auto()


class Outlet(Protocol):
    """The way to one watcher.

    Attributes:
        can_push: Whether it can be written to without waiting.
        direct: Takes the bytes of an HTTP chunk, and cares for nothing else: who is told that the reader is slow may
            use it. Per watcher and event it costs 1.5 µs less than `write`, whose objects are in no cache any more
            when a thousand sends have gone through the kernel.
    """

    can_push: bool
    direct: Callable[[bytes], None] | None

    def write(self, chunk: Chunk) -> Taken:
        """Send a chunk, without waiting. After `LATER`, call `finish` before anything else."""
        ...

    async def finish(self) -> None:
        """Wait until what was begun has gone out."""
        ...

    def abort(self) -> None:
        """Cut the connection, where that can be done."""
        ...


class TransportOutlet:
    """Writes to the transport of the connection."""

    __slots__ = ("_transport", "direct")

    can_push = True

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.direct: Callable[[bytes], None] | None = transport.write

    def write(self, chunk: Chunk) -> Taken:
        """See `Outlet`."""
        if self._transport.get_write_buffer_size() > FULL_BYTES:
            return Taken.NO
        self._transport.write(chunk.http)
        return Taken.YES

    def limit(self) -> None:
        """Have the connection be told when more than FULL_BYTES are unsent, and not before."""
        self._transport.set_write_buffer_limits(high=FULL_BYTES)

    async def finish(self) -> None:
        """See `Outlet`."""

    def abort(self) -> None:
        """See `Outlet`."""
        self._transport.abort()


class SteppedOutlet:
    """Runs the server's `send` by hand; as long as it has not to wait, it is done when it returns."""

    __slots__ = ("_begun", "_send")

    can_push = True
    direct: Callable[[bytes], None] | None = None

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
    direct: Callable[[bytes], None] | None = None

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

    def paused(self) -> None:
        """The client reads too slowly."""
        ...

    def resumed(self) -> None:
        """It has read."""
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
    return all(callable(getattr(found, name, None)) for name in _TRANSPORT)


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
