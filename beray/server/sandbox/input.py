"""The end of a command's standard input that the server writes to."""

import asyncio
import os

from beray.server.sandbox.base import InputClosed


class InputPipe:
    """A pipe's writing end. Used from one event loop, by one writer at a time.

    Args:
        fd: The end; it is this object's to close.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiter: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """Give the command all of `data`; see the port."""
        rest = memoryview(data)
        while rest:
            if self._fd < 0:
                raise InputClosed("The command's input is closed, or it has ended.")
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._wait_for_room()
            except BrokenPipeError:
                self.close()

    def close(self) -> None:
        """Tell the command that nothing more comes. May be called twice; a writer that waits is told."""
        if self._fd < 0:
            return
        self._stop_waiting()
        os.close(self._fd)
        self._fd = -1

    async def _wait_for_room(self) -> None:
        """Until something can be written, or the reader has gone, or it was closed."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_writer(self._fd, self._stop_waiting)
        try:
            await self._waiter
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        waiter.get_loop().remove_writer(self._fd)
        if not waiter.done():
            waiter.set_result(None)
