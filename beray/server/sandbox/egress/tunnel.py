"""Carry bytes between two sockets, as fast as the slower side takes them."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from beray.server.sandbox.egress.limits import EgressLimits

_CHUNK_BYTES = 32 * 1024


class Tunnel:
    """One connection's two directions.

    Args:
        inside: The command's socket.
        outside: The host's. Both are non-blocking and stay the caller's to close.
    """

    def __init__(self, inside: socket.socket, outside: socket.socket, limits: EgressLimits) -> None:
        self._out = _Way(inside, outside)
        self._in = _Way(outside, inside)
        self._limits = limits

    @property
    def sent(self) -> int:
        """Bytes the host was given."""
        return self._out.carried

    @property
    def received(self) -> int:
        """Bytes the command was given."""
        return self._in.carried

    async def run(self, first: bytes, is_enough: Callable[[bytes], bool]) -> None:
        """Carry until both sides have ended, or one is broken.

        Args:
            first: What the command has sent already.
            is_enough: Looks at what the command has sent so far before any of it goes on; False: it needs to see more.
                What it raises ends the connection.

        Raises:
            TimeoutError: Nothing was carried for too long, or the connection is too old.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.most_seconds
        async with asyncio.timeout(None) as deadline:

            def put_off() -> None:
                deadline.reschedule(min(end, loop.time() + self._limits.idle_seconds))

            put_off()
            inward = asyncio.create_task(self._in.run(b"", put_off))
            try:
                await self._out.run(await self._out.look(first, is_enough), put_off)
                await inward
            finally:
                inward.cancel()
                await asyncio.wait([inward])


class _Way:
    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source = source
        self._target = target
        self.carried = 0

    async def look(self, first: bytes, is_enough: Callable[[bytes], bool]) -> bytes:
        """What the source has sent when it is enough to be judged; nothing when it ends before."""
        loop = asyncio.get_running_loop()
        while not is_enough(first):
            chunk = await loop.sock_recv(self._source, _CHUNK_BYTES)
            if not chunk:
                return b""
            first += chunk
        return first

    async def run(self, first: bytes, moved: Callable[[], None]) -> None:
        """Carry to the source's end, and tell the target of it."""
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            await loop.sock_sendall(self._target, first)
            self.carried += len(first)
            while count := await loop.sock_recv_into(self._source, buffer):
                await loop.sock_sendall(self._target, buffer[:count])
                self.carried += count
                moved()
            self._target.shutdown(socket.SHUT_WR)
        except OSError:  # one side has gone without a word: the other way has no purpose any more
            for side in (self._source, self._target):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
