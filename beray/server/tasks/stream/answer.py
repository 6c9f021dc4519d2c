"""The answer to GET /tasks/{id}/stream."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from beray.protocol.sse import RETRY_LINE
from beray.server.errors import Refused
from beray.server.tasks.stream.hub import Hub
from beray.server.tasks.stream.outlets import open_outlet

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Streams:
    """The open streams of this process, counted per user.

    Args:
        most_per_user: How many a user may hold; 0: no limit.
    """

    def __init__(self, most_per_user: int) -> None:
        self._most_per_user = most_per_user
        self._open: Counter[int] = Counter()

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


@dataclass(frozen=True, slots=True)
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
    """An ASGI application: the stream, from its head to its end. While it is live, it only waits for the client."""

    def __init__(self, hub: Hub, streams: Streams, watcher: Watcher) -> None:
        self._hub = hub
        self._streams = streams
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one, the reader's end or logout, or the server's end."""
        watcher = self._watcher
        with self._streams.counted(watcher.user_id):
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            outlet = await open_outlet(scope, send, RETRY_LINE)
            subscribed = self._hub.subscribed(
                watcher.task_id, outlet=outlet, send=send, is_allowed=watcher.is_allowed, after=watcher.after
            )
            with subscribed:
                while (await receive())["type"] != "http.disconnect":
                    pass
