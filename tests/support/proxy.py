"""A TCP proxy that spreads connections over several servers, and cuts them where it is told to."""

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

CHUNK = 4096
CONNECT_SECONDS = 2.0


class Proxy:
    """Forwards each connection to the next server that can be reached. Use it as a context manager.

    Args:
        targets: Ports on loopback, asked for each connection.
        cut_after: Bytes from the server after which a connection is cut, asked for each connection; None: never.
    """

    def __init__(
        self, targets: Callable[[], Sequence[int]], *, cut_after: Callable[[], int | None] = lambda: None
    ) -> None:
        self._targets = targets
        self._cut_after = cut_after
        self._turn = 0
        self.port = 0
        self.cuts = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy did not end"

    def cut_all(self) -> None:
        """Cut every connection there is now."""

        def cut() -> None:
            self.cuts += len(self._connections)
            for connection in self._connections:
                connection.cancel()

        self._loop.call_soon_threadsafe(cut)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ending.wait()
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the connection is cut
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            return
        is_cut = await pump_both((reader, writer), upstream, most=self._cut_after())
        self.cuts += is_cut

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """To the next server that answers; None if none does."""
        ports = list(self._targets())
        self._turn += 1
        for offset in range(len(ports)):
            port = ports[(self._turn + offset) % len(ports)]
            try:
                return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), CONNECT_SECONDS)
            except OSError:
                continue
        return None


End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pump_both(client: End, server: End, *, most: int | None = None) -> bool:
    """Copy both ways until one end is gone, or `most` bytes of the server's are through; whether that was it."""
    ways = [
        asyncio.create_task(_pump(client[0], server[1], None)),
        asyncio.create_task(_pump(server[0], client[1], most)),
    ]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        return any(not way.exception() and way.result() for way in done)
    finally:
        for way in ways:
            way.cancel()
        server[1].transport.abort()  # before anything is awaited, where this may be cancelled once more
        await asyncio.gather(*ways, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> bool:
    """Copy until the end, or until `most` bytes are through; whether that was it."""
    left = most
    while left is None or left > 0:
        data = await reader.read(CHUNK if left is None else min(CHUNK, left))
        if not data:
            return False
        writer.write(data)
        await writer.drain()
        if left is not None:
            left -= len(data)
    return True


def randomly(generator: random.Random, *, mean_bytes: int) -> Callable[[], int]:
    """Cuts at random places."""
    return lambda: 1 + int(generator.expovariate(1 / mean_bytes))
