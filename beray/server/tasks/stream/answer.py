"""The answer to GET /tasks/{id}/stream."""

from collections import Counter
from functools import partial

from starlette.types import Receive, Scope, Send

from beray.protocol.sse import RETRY_LINE
from beray.server.errors import Refused
from beray.server.tasks.stream.hub import Hub
from beray.server.tasks.stream.outlets import Outlet, find_keeper, open_outlet
from beray.server.tasks.stream.subscriber import Subscriber, Watcher

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

    def open(self, user_id: int) -> None:
        """Count one more of the user's streams, until `close`.

        Raises:
            Refused: too_many_streams.
        """
        if 0 < self._most_per_user <= self._open[user_id]:
            raise Refused("too_many_streams", most=self._most_per_user, retry_after_seconds=5)
        self._open[user_id] += 1

    def close(self, user_id: int) -> None:
        """One of the user's streams has come to its end."""
        self._open[user_id] -= 1
        if self._open[user_id] == 0:
            del self._open[user_id]

    @property
    def count(self) -> int:
        """Streams open now."""
        return self._open.total()


class TaskStream:
    """An ASGI application: the stream, from its head to its end.

    Where the server's connection can keep an answer it returns at once, which spares a watcher its task and all that a
    request is made of; else it waits until the client has gone.
    """

    def __init__(self, hub: Hub, streams: Streams, watcher: Watcher) -> None:
        self._hub = hub
        self._streams = streams
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one, the reader's end or logout, or the server's end."""
        self._streams.open(self._watcher.user_id)
        is_kept = False
        subscriber: Subscriber | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            raw = scope.get("beray.send", send)
            subscriber = self._subscribe(await open_outlet(raw, RETRY_LINE), raw)
            keep = find_keeper(raw)
            if keep is not None:
                subscriber.keep(keep)
                is_kept = True
                return
            subscriber.begin()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            if subscriber is None:
                self._streams.close(self._watcher.user_id)
            elif not is_kept:
                subscriber.lost()

    def _subscribe(self, outlet: Outlet, send: Send) -> Subscriber:
        release = partial(self._streams.close, self._watcher.user_id)
        return self._hub.subscribe(self._watcher, outlet, send=send, release=release)
