"""Send a file's bytes from the kernel to the client, without a copy of them here (sendfile(2)).

A copy into this process and one out of it are most of what a download costs: 0.26 s of processor time for a GB, not
0.55. uvicorn offers no way around its transport, so the bytes go to the connection's socket beside it, while the
transport has nothing to send itself; its answer is then told that they went. The disk may be slow, so it is a thread
that sends; where the client is slow, none waits for it.
"""

import asyncio
import errno
import os
import select
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from starlette.types import Scope

TURN_BYTES: Final = 16 << 20  # then another download has its turn with the thread
PATIENCE_MS: Final = 5  # that a thread waits for a client: one that reads at once, makes room in less
GONE_SECONDS: Final = 1.0  # from a failed write until the loop knows that the client has gone
FLUSH_LOOKS: Final = 10  # whether the head has gone out; it goes out at the end of the loop's turn


_CANT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})  # this file system, or kernel, sends no files


class Connection(Protocol):
    """One that is told when its client reads too slowly, as a transport would tell it, and cuts it off one day."""

    transport: asyncio.Transport
    silence_seconds: float

    def pause_writing(self) -> None:
        """The client does not take what was sent."""
        ...

    def resume_writing(self) -> None:
        """It does again."""
        ...


def find_sender(scope: Scope) -> "SocketSender | None":
    """What sends files for this request; None where the connection is none of ours.

    uvicorn shows it by its own `send`, which only the outermost callable gets (hence `beray.send` in the scope).
    """
    cycle = getattr(scope.get("beray.send"), "__self__", None)
    transport: Any = getattr(cycle, "transport", None)
    if not hasattr(cycle, "expected_content_length") or not hasattr(transport, "get_protocol"):
        return None
    connection = transport.get_protocol()
    return SocketSender(connection, cycle) if hasattr(connection, "silence_seconds") else None


class _Pushed(NamedTuple):
    """How far a thread came, and whether it stopped because the client did not take more."""

    at: int
    is_full: bool


class SocketSender:
    """Sends files as part of one answer.

    Args:
        connection: Its connection.
        cycle: uvicorn's view of the answer.
    """

    def __init__(self, connection: Connection, cycle: Any) -> None:
        self._connection = connection
        self._cycle = cycle

    async def send(self, file: int, start: int, stop: int, *, gone: "asyncio.Future[None]") -> int:
        """Send bytes of a file as part of the body of an answer that was begun and has a Content-Length.

        Args:
            file: A descriptor.
            start: The first byte.
            stop: Behind the last.
            gone: Done when the client has gone; nothing more is sent then.

        Returns:
            How far it came; what is left is to be sent in the usual way.

        Raises:
            EOFError: The file has become shorter.
        """
        if not await self._is_flushed():
            return start
        pump = _open_pump(file, self._connection.transport.get_extra_info("socket").fileno())
        if pump is None:
            return start
        at = start
        with closing(pump):
            while at < stop and not gone.done():
                try:
                    pushed = await pump.push(at, min(stop, at + TURN_BYTES))
                except ConnectionError:
                    await asyncio.wait({gone}, timeout=GONE_SECONDS)
                    break
                except OSError as error:
                    if error.errno not in _CANT:
                        raise
                    break
                self._cycle.expected_content_length -= pushed.at - at  # or uvicorn would call the answer too short
                at = pushed.at
                if pushed.is_full:
                    await self._wait_writable(pump.socket, gone)
        return at

    async def _is_flushed(self) -> bool:
        """Whether the transport has sent all it had."""
        transport = self._connection.transport
        for _ in range(FLUSH_LOOKS):
            if transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
                return False
            if transport.get_write_buffer_size() == 0:
                return True
            await asyncio.sleep(0)  # the transport writes at the end of the loop's turn
        return False

    async def _wait_writable(self, socket: int, gone: "asyncio.Future[None]") -> None:
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        self._connection.pause_writing()
        loop.add_writer(socket, _set, writable)
        try:
            await asyncio.wait({writable, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(socket)
            self._connection.resume_writing()


class _Pump:
    """A file, a socket, and the thread that may be between them: they are closed when it has left."""

    def __init__(self, file: int, socket: int) -> None:
        self.socket = socket
        self._file = file
        self._pushing: asyncio.Future[_Pushed] | None = None

    async def push(self, at: int, stop: int) -> _Pushed:
        loop = asyncio.get_running_loop()
        self._pushing = loop.run_in_executor(None, partial(_push, self.socket, self._file, at, stop))
        return await asyncio.shield(self._pushing)

    def close(self) -> None:
        if self._pushing is None or self._pushing.done():
            self._close(None)
        else:
            self._pushing.add_done_callback(self._close)

    def _close(self, pushing: "asyncio.Future[_Pushed] | None") -> None:
        if pushing is not None:
            _ = pushing.cancelled() or pushing.exception()  # nobody else asks
        os.close(self._file)
        os.close(self.socket)


def _open_pump(file: int, socket: int) -> _Pump | None:
    """None where no more files can be open."""
    own: list[int] = []
    try:
        own += [os.dup(file)]
        own += [os.dup(socket)]
    except OSError as error:
        for descriptor in own:
            os.close(descriptor)
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            return None
        raise
    return _Pump(*own)


def _push(socket: int, file: int, start: int, stop: int) -> _Pushed:
    at = start
    while at < stop:
        try:
            sent = os.sendfile(socket, file, at, stop - at)
        except BlockingIOError:
            if not _has_room(socket):
                return _Pushed(at, is_full=True)
            continue
        except OSError:
            if at == start:
                raise
            return _Pushed(at, is_full=False)  # what went is told; the next call meets the error again
        if sent == 0:
            raise EOFError("the file has become shorter")
        at += sent
    return _Pushed(at, is_full=False)


def _has_room(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLOUT)
    return bool(poll.poll(PATIENCE_MS))


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
