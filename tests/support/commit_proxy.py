"""A proxy in front of PostgreSQL that cuts connections around their COMMIT, or hides the server altogether."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from tests.support.proxy import CHUNK, Proxy

Cut = Literal["no", "before", "stranded", "after", "unheard", "racing"]
"""`before`: the COMMIT never arrives, and the server sees the end. `stranded`: it never arrives, and the server sees
nothing, so that its session stays in its transaction. `after`: it is answered, but the client does not hear it.
`unheard`: the same, and the server does not see that its client is gone.
`racing`: it is sent, and the connection cut at once."""

COMMIT: Final = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class CommitProxy(Proxy):
    """Speaks as much of PostgreSQL's protocol as it takes to see a COMMIT. Use it as a context manager.

    Args:
        port: The server's, on loopback.

    Attributes:
        cut: Asked at each COMMIT what becomes of it.
        is_open: Whether new connections get through.
        is_silent: Whether nothing that a client says gets through; its connection stays open.
        commits: What became of each COMMIT so far.
    """

    def __init__(self, port: int) -> None:
        super().__init__(lambda: [port] if self.is_open else [])
        self.cut: Callable[[], Cut] = lambda: "no"
        self.is_open = True
        self.is_silent = False
        self.commits: list[Cut] = []
        self._stranded: list[asyncio.StreamWriter] = []

    def hide(self) -> None:
        """Take the database away from its clients: no connection is left, and no new one is to be had."""
        self.is_open = False
        self.cut_all()

    def show(self) -> None:
        """Give it back."""
        self.is_open = True

    def end_stranded(self) -> None:
        """Let the server see that the clients of its stranded sessions are gone."""
        self._loop.call_soon_threadsafe(self._end_stranded)

    def _end_stranded(self) -> None:
        for out in self._stranded:
            out.transport.abort()
        self._stranded.clear()

    async def _main(self) -> None:
        try:
            await super()._main()
        finally:
            self._end_stranded()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            return
        back, out = upstream
        answering = asyncio.create_task(_copy(back, writer))
        asking = asyncio.create_task(self._ask(reader, back, out, answering))
        try:
            await asyncio.wait([answering, asking], return_when=asyncio.FIRST_COMPLETED)
            if answering.cancelled():  # the asking side hears the last answer itself
                await asking
        finally:
            answering.cancel()
            asking.cancel()
            if out not in self._stranded:
                out.transport.abort()
            await asyncio.gather(answering, asking, return_exceptions=True)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamReader,
        out: asyncio.StreamWriter,
        answering: "asyncio.Task[None]",
    ) -> None:
        while data := await reader.read(CHUNK):
            if self.is_silent:
                continue
            if data.endswith(COMMIT):
                cut = self.cut()
                self.commits.append(cut)
                if cut in {"stranded", "unheard"}:
                    self._stranded.append(out)
                if cut in {"after", "unheard"}:
                    answering.cancel()
                if cut in {"after", "unheard", "racing"}:
                    out.write(data)
                    await out.drain()
                if cut in {"after", "unheard"}:
                    await asyncio.gather(answering, return_exceptions=True)
                    await back.read(CHUNK)
                if cut != "no":
                    self.cuts += 1
                    return
            out.write(data)
            await out.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
