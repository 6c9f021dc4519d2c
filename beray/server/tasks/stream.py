"""The event stream of a task (WIRE.md, "Events and the stream"): replay from the store, then live.

Each watcher is a cursor over the store, woken after each commit: what it sends has been committed, in order, without
gap or repeat. A slow reader only slows itself (real backpressure through `send`).
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from beray.protocol.sse import HEARTBEAT, HEARTBEAT_SECONDS, RETRY_LINE
from beray.server.errors import Refused
from beray.server.events.log import PAGE, EventLog, frame_seq, is_finished
from beray.server.events.wakeups import wait_changed

AWAY_SECONDS = 5.0  # between looks while the database is away; the stream stays open, with heartbeats
ALLOWED_SECONDS = 1.0  # how long a reader is believed to be still logged in; a look costs one indexed read

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Streams:
    """The open streams of this process: counted per user, and ended together when the server closes.

    Args:
        most_per_user: How many a user may hold; 0: no limit.
    """

    def __init__(self, most_per_user: int) -> None:
        self._most_per_user = most_per_user
        self._open: Counter[int] = Counter()
        self.is_closing = False

    @contextmanager
    def counted(self, user_id: int) -> Iterator[None]:
        """Hold one of the user's streams for as long as the block lasts.

        Raises:
            Refused: too_many_streams.
        """
        if 0 < self._most_per_user <= self._open[user_id]:
            raise Refused("too_many_streams", most=self._most_per_user, retry_after_seconds=5)
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if self._open[user_id] == 0:
                del self._open[user_id]

    @property
    def count(self) -> int:
        """Streams open now."""
        return self._open.total()


@dataclass(frozen=True)
class Watcher:
    """Who watches which task.

    Attributes:
        after: The `seq` of the last event they have.
        is_allowed: Whether they are still logged in.
    """

    user_id: int
    task_id: int
    after: int
    is_allowed: Callable[[], Awaitable[bool]]


class TaskStream:
    """The answer to GET /tasks/{id}/stream, as an ASGI response."""

    def __init__(self, events: EventLog, streams: Streams, watcher: Watcher) -> None:
        self._events = events
        self._streams = streams
        self._watcher = watcher
        self._task_id = watcher.task_id
        self._cursor = watcher.after
        self._allowed_until = asyncio.get_running_loop().time() + ALLOWED_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one, the reader's end or logout, or the server's end."""
        with self._streams.counted(self._watcher.user_id):
            gone = asyncio.create_task(_wait_disconnect(receive))
            sending = asyncio.create_task(self._send(send))
            try:
                await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                gone.cancel()
                sending.cancel()
                await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": RETRY_LINE, "more_body": True})
        with self._events.watching(self._task_id) as changed, contextlib.suppress(_Gone):
            await self._replay_and_follow(send, changed)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _replay_and_follow(self, send: Send, changed: asyncio.Event) -> None:
        while not self._streams.is_closing and await self._is_allowed():
            changed.clear()
            wait_seconds: float = HEARTBEAT_SECONDS
            try:
                if await self._send_new(send):
                    return
            except Refused as refused:
                if refused.code != "database_unavailable":
                    raise
                wait_seconds = AWAY_SECONDS
            if not await wait_changed(changed, wait_seconds):
                await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    async def _send_new(self, send: Send) -> bool:
        """Send what the watcher has not seen; whether that was the end."""
        while True:
            frames = await self._events.read(self._task_id, after=self._cursor)
            if frames:
                await send({"type": "http.response.body", "body": b"".join(frames), "more_body": True})
                self._cursor = frame_seq(frames[-1])
            if len(frames) < PAGE:
                return await self._has_ended(frames)
            if self._streams.is_closing or not await self._is_allowed():
                return True

    async def _is_allowed(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._allowed_until:
            return True
        self._allowed_until = now + ALLOWED_SECONDS
        return await self._watcher.is_allowed()

    async def _has_ended(self, frames: list[bytes]) -> bool:
        """Whether the watcher has the last stored event and it is a `task.finished`.

        One met earlier in a replay ends nothing; nor does one that was stored since the last look: it is sent first.
        """
        if frames:
            return is_finished(frames[-1])
        tail = await self._events.read_last(self._task_id)
        if tail is None:
            raise _Gone
        return is_finished(tail) and frame_seq(tail) <= self._cursor


class _Gone(Exception):
    """The task has been deleted."""


async def _wait_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
