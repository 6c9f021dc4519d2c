"""Streams without the rest of a server: the hub over a real log, and watchers on every way to reach one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from sqlalchemy import URL
from starlette.types import Message, Receive, Scope, Send

from beray.protocol.sse import EventStreamDecoder
from beray.server.clock import system_clock
from beray.server.connection import BoundedConnection, connection_speaking
from beray.server.db.connect import Database
from beray.server.db.notices import Notice
from beray.server.edge import Edge
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import Wakeups
from beray.server.tasks.stream import Hub, Streams, TaskStream, Watcher
from beray.server.tasks.stream.outlets import Kept
from tests.support.asgi import served
from tests.support.databases import seeded_database
from tests.support.waiting import wait_until

T = TypeVar("T")

Way = Literal["TransportOutlet", "SteppedOutlet", "CursorOutlet"]
WAYS: tuple[Way, ...] = get_args(Way)


class NoCoroutine:
    """An awaitable that is no coroutine, as some servers' `send` gives."""

    def __init__(self, sending: Awaitable[None]) -> None:
        self._sending = sending

    def __await__(self) -> Any:
        return self._sending.__await__()


@dataclass
class StreamBench:
    """A log with tasks, its hub, and an application that streams task N at /N?after=M."""

    database: Database
    log: EventLog
    hub: Hub
    streams: Streams = field(default_factory=lambda: Streams(0))
    logged_in: bool = True
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # closed, streams begin later
    way: Way = "TransportOutlet"

    async def append(self, task_id: int, count: int = 1, *, size: int = 0) -> None:
        await self.log.append(task_id, [NewEvent("text.delta", {"delta": "x" * size})] * count)

    async def finish(self, task_id: int) -> None:
        await self.log.append(task_id, [NewEvent("task.finished", {"status": "completed"})])

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, after = int(scope["path"][1:]), int(scope["query_string"].removeprefix(b"after=") or 0)
        if self.way == "SteppedOutlet":
            scope["beray.send"] = lambda message: send(message)
        elif self.way == "CursorOutlet":
            scope["beray.send"] = lambda message: NoCoroutine(send(message))
        self.asked += 1
        await self.gate.wait()
        await TaskStream(self.hub, self.streams, Watcher(1, path, after, self._is_allowed))(scope, receive, send)

    @property
    def ways(self) -> Counter[str]:
        """By which kinds of outlets the open streams are written to."""
        return Counter(type(subscriber.outlet).__name__ for subscriber in self.hub._subscribers)

    async def _is_allowed(self) -> bool:
        return self.logged_in


@contextmanager
def opened_bench(url: URL, *task_ids: int) -> Iterator[StreamBench]:
    """On the running loop."""
    with seeded_database(url, *task_ids, status="running", attempt=1) as database:
        log = EventLog(database, Wakeups(), system_clock)
        bench = StreamBench(database, log, Hub(log, reads_inline=not database.is_shared))
        bench.gate.set()
        database.deliver = bench.hub.hear
        yield bench


class ServedStreams:
    """The bench served by uvicorn over loopback; `run` does something on its loop."""

    def __init__(self, url: URL, *task_ids: int) -> None:
        self._open = partial(opened_bench, url, *task_ids)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.connections: set[object] = set()  # that are open
        self.bench: StreamBench

    def run(self, work: Callable[[StreamBench], Awaitable[T]]) -> T:
        assert self._loop is not None

        async def do() -> T:
            return await work(self.bench)

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(30)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.bench.app(scope, receive, send)
            return
        await receive()
        self._loop = asyncio.get_running_loop()
        with self._open() as self.bench:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _counted(connections: set[object]) -> type[BoundedConnection]:
    class Counted(connection_speaking("en")):  # type: ignore[misc]  # made anew for each server
        def connection_made(self, transport: asyncio.Transport) -> None:
            connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            connections.discard(self)

    return Counted


@contextmanager
def served_streams(url: URL, *task_ids: int) -> Iterator[tuple[str, ServedStreams]]:
    """The base URL, and what stands behind it."""
    streams = ServedStreams(url, *task_ids)
    edge = Edge(streams.app, default_language="en", max_body_bytes=1 << 20)
    with served(edge, connection=_counted(streams.connections)) as base_url:
        wait_until(lambda: hasattr(streams, "bench"), what="a server")
        yield base_url, streams


class Reader:
    """A watcher in this process: what the application sends it. While it is slow it takes nothing."""

    def __init__(self, bench: StreamBench, task_id: int, after: int = 0) -> None:
        self.after = after
        self.decoder = EventStreamDecoder()
        self.seqs: list[int] = []
        self.writes: list[bytes] = []
        self.has_ended = False
        self.fails = False
        self._is_quick = asyncio.Event()
        self._is_quick.set()
        self.gone = asyncio.Event()
        scope: Scope = {"path": f"/{task_id}", "query_string": b"after=%d" % after}
        self._connection: _Connection | None = None
        if bench.way == "TransportOutlet":
            self._connection = _Connection(self)
            scope["beray.send"] = self._connection.cycle.send
        self.task = asyncio.create_task(bench.app(scope, self._receive, self.send))
        if self._connection is not None:
            self.task.add_done_callback(self._connection.begin)

    def be_slow(self) -> None:
        self._is_quick.clear()

    def be_quick(self) -> None:
        self._is_quick.set()
        if self._connection is not None:
            self._connection.flush()

    @property
    def is_quick(self) -> bool:
        return self._is_quick.is_set()

    async def leave(self) -> None:
        self.gone.set()
        await self.task
        if self._connection is not None:
            self._connection.lose()

    def take(self, body: bytes) -> None:
        if body:
            self.writes.append(body)
            self.seqs += [int(event.id) for event in self.decoder.feed(body)]

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gone.is_set():
            return
        if self.fails:
            raise OSError("cut")
        await self._is_quick.wait()
        self.take(message.get("body", b""))
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.has_ended = True
            self.gone.set()


class _Cycle:
    """What uvicorn's `send` belongs to."""

    chunked_encoding = True

    def __init__(self, connection: "_Connection", send: Send) -> None:
        self.on_response = connection.on_response
        self.transport = connection
        self._send = send

    async def send(self, message: Message) -> None:
        await self._send(message)


class _Connection:
    """A connection of ours with its transport: tells when more is unsent than it should be, and keeps an answer."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: Kept | None = None
        self._unsent: list[bytes] = []
        self._most_bytes = 0
        self.cycle = _Cycle(self, reader.send)

    def on_response(self) -> None: ...

    def keep_answer(self, kept: Kept) -> None:
        self._kept = kept

    def begin(self, task: "asyncio.Task[None]") -> None:
        if self._kept is not None:
            self._kept.begin()

    def lose(self) -> None:
        if self._kept is not None:
            self._kept.lost()

    def write(self, chunk: bytes) -> None:
        size, _, rest = chunk.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2, "one chunk, whole"
        self._unsent.append(rest[:-2])
        self.flush()
        if self._unsent and self._kept is not None:
            self._kept.paused()

    def flush(self) -> None:
        if self._reader.is_quick and self._unsent:
            for body in self._unsent:
                self._reader.take(body)
            self._unsent.clear()
            if self._kept is not None:
                self._kept.resumed()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._unsent))

    def set_write_buffer_limits(self, high: int) -> None:
        self._most_bytes = high

    def abort(self) -> None: ...


@asynccontextmanager
async def reading(bench: StreamBench, task_id: int, count: int = 1, *, after: int = 0) -> AsyncIterator[list[Reader]]:
    """So many watchers, who leave at the end."""
    readers = [Reader(bench, task_id, after) for _ in range(count)]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.be_quick()
            await reader.leave()


def told_elsewhere(task_id: int) -> Notice:
    """What another process tells."""
    return Notice("log", task_id)
