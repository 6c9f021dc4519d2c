"""Send bytes that come from blocking reads: one piece ahead, in a thread, and no further than the client takes them.

While a piece goes out the next one is read; at most two are in memory. No thread is held while the client is slow. Of a
file the kernel sends what it can without a copy (`sendfile.py`), where the connection is one of ours.
The source is closed when the answer ends, however it ends, but never under a thread that still reads from it.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from beray.server.files.conditions import Slice
from beray.server.sendfile import SocketSender, find_sender
from beray.server.work_dirs.open_file import OpenFile

SENDFILE_LEAST: Final = 128 << 10  # a smaller file is read and written in less than a thread takes to begin
PIECE_BYTES: Final = 1 << 20  # 64 KB pieces cost 1.3x the CPU per byte
SEND_SECONDS: Final = 120  # a client that takes no piece in this time is gone
_OF_THE_SENDER: Final = (b"content-length", b"accept-ranges")  # whoever sends the bytes says so himself

log = logging.getLogger("beray.files")


class Closable(Protocol):
    """Something with descriptors."""

    def close(self) -> None:
        """Release them; twice is harmless."""
        ...


class Pieces(Closable, Protocol):
    """Where an answer's bytes come from. Blocking; one thread at a time."""

    def next(self) -> bytes | None:
        """The next bytes; None at the end.

        Raises:
            ContentCut: There should be more, but it is gone.
        """
        ...


class ContentCut(Exception):
    """The content changed while it was sent; what has been sent can't be made whole."""


class FilePieces:
    """A part of an open file. A file that shrinks meanwhile is cut, never padded or silently shorter."""

    def __init__(self, file: OpenFile, part: Slice) -> None:
        self._file = file
        self._offset = part.start
        self._stop = part.stop

    @property
    def size(self) -> int:
        """Bytes that are left."""
        return self._stop - self._offset

    async def pass_to(self, sender: SocketSender, gone: "asyncio.Future[None]") -> None:
        """Have the kernel send them, as far as that goes; `next` gives what is left."""
        self._offset = await sender.send(self._file.fd, self._offset, self._stop, gone=gone)

    def next(self) -> bytes | None:
        """The next piece."""
        wanted = min(PIECE_BYTES, self._stop - self._offset)
        if wanted == 0:
            return None
        piece = self._file.read_at(self._offset, wanted)
        if len(piece) < wanted:
            raise ContentCut("the file has become shorter")
        self._offset += wanted
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PieceResponse(Response):
    """Sends `source` and closes it. If it fails midway the connection is cut, so that the client notices.

    Args:
        source: The bytes; None for an answer without any (HEAD, 304).
        status_code: As usual.
        headers: As usual; with Content-Length where it is known, else the answer is chunked.
    """

    def __init__(self, source: Pieces | None, *, status_code: int, headers: Mapping[str, str]) -> None:
        self.status_code = status_code
        self.background = None
        self.body = b""
        self._source = source
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    @property
    def has_source(self) -> bool:
        """Whether it will close a source."""
        return self._source is not None

    def add_header(self, name: str, value: str) -> None:
        """A further header."""
        self.raw_headers.append((name.encode("latin-1"), value.encode("latin-1")))

    def hand_over(self, name: str, value: str) -> None:
        """Leave the bytes to whoever the header tells where they are; the source is the caller's again."""
        self._source = None
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] not in _OF_THE_SENDER]
        self.add_header("content-length", "0")
        self.add_header(name, value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        if self._source is None:
            await send(self._start())
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(_disconnected(receive))
        sending = _Sending(self._source, send, gone)
        try:
            await sending.run(self._start(), scope)
        except (ContentCut, EOFError, TimeoutError) as error:
            log.warning("download cut", extra={"path": scope["path"], "reason": str(error) or "the client is too slow"})
        finally:
            gone.cancel()
            sending.close()

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}


class _Sending:
    """One answer on its way, until the client has it or has gone."""

    def __init__(self, source: Pieces, send: Send, gone: "asyncio.Future[None]") -> None:
        self._source = source
        self._send = send
        self._gone = gone
        self._ahead = _ReadAhead(source)

    def close(self) -> None:
        self._ahead.close()

    async def run(self, start: Message, scope: Scope) -> None:
        source = self._source
        if isinstance(source, FilePieces) and source.size >= SENDFILE_LEAST and (sender := find_sender(scope)):
            await self._send(start)
            await source.pass_to(sender, self._gone)
            await self._send_rest(b"")
            return
        piece = await self._ahead.next()  # before the headers: what fails here can still be told
        while piece == b"" and not self._gone.done():
            piece = await self._ahead.next()
        await self._send(start)
        await self._send_rest(piece)

    async def _send_rest(self, piece: bytes | None) -> None:
        while piece is not None:
            if self._gone.done():
                return
            if piece:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await self._ahead.next()
        await self._send({"type": "http.response.body", "body": b""})


class _ReadAhead:
    """Reads one piece more than was asked for, in a thread."""

    def __init__(self, source: Pieces) -> None:
        self._source = source
        self._reading: asyncio.Future[bytes | None] | None = None

    async def next(self) -> bytes | None:
        reading = self._reading or in_thread(self._source.next)
        self._reading = reading
        piece = await asyncio.shield(reading)
        self._reading = None if piece is None else in_thread(self._source.next)
        return piece

    def close(self) -> None:
        close_after(self._reading, self._source)


T = TypeVar("T")
C = TypeVar("C", bound=Closable)


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Start blocking work in a thread, with the request's context (its language)."""
    return asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, work)


async def open_in_thread(opener: Callable[[], C]) -> C:
    """Open something in a thread; if the caller is cancelled meanwhile, it is closed when it has been opened."""
    opening = in_thread(opener)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_result)
        raise


def close_after(work: "asyncio.Future[Any] | None", closable: Closable) -> None:
    """Close `closable` once no thread uses it any more; `work` is what one may still do."""
    if work is None:
        closable.close()
        return

    def close(done: "asyncio.Future[Any]") -> None:
        _ = done.cancelled() or done.exception()  # nobody else asks
        closable.close()

    if work.done():
        close(work)
    else:
        work.add_done_callback(close)


def _close_result(opening: "asyncio.Future[C]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
