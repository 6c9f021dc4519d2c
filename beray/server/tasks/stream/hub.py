"""The feeds of this process, and what all streams share: one timer of heartbeats, the turns of replays, and the end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from starlette.types import Send

from beray.server.db.notices import Notice
from beray.server.errors import Refused
from beray.server.events.log import EventLog, Page
from beray.server.tasks.stream.feed import Feed
from beray.server.tasks.stream.outlets import Outlet
from beray.server.tasks.stream.subscriber import Subscriber, Watcher

BEAT_SECONDS: Final = 1.0  # how exactly heartbeats, and ends of logins, are seen to
ASKED_AT_ONCE: Final = 100  # logins looked at before others get their turn
CLOSE_SECONDS: Final = 1.5  # a stream that can't be ended by then, since nobody reads it, is cut

Work = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger("beray.stream")


class Hub:
    """Every open stream of this process. Lives on one event loop.

    Args:
        events: The log.
        reads_inline: Whether a read of it holds up the loop.
    """

    def __init__(self, events: EventLog, *, reads_inline: bool) -> None:
        self._events = events
        self._feeds: dict[int, Feed] = {}
        self._subscribers: set[Subscriber] = set()
        self._works: set[asyncio.Task[None]] = set()
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if reads_inline else nullcontext()
        self._is_closing = False
        self._is_looking = False
        self._must_look = False

    def hear(self, notices: Sequence[Notice]) -> None:
        """Pass on what has been committed, here or elsewhere."""
        for notice in notices:
            if notice.kind == "log":
                feed = self._feeds.get(notice.task_id)
                if feed is not None:
                    feed.hear(notice.first_seq, notice.frames)
            elif notice.kind == "all":
                for feed in tuple(self._feeds.values()):
                    feed.hear(0, ())

    def subscribe(
        self, watcher: Watcher, outlet: Outlet, *, send: Send, release: Callable[[], None] = lambda: None
    ) -> Subscriber:
        """A subscriber for a watcher, which the caller begins, and tells when it is lost."""
        feed = self._feeds.get(watcher.task_id)
        if feed is None:
            feed = self._feeds[watcher.task_id] = Feed(self._events, watcher.task_id)
        feed.members += 1
        subscriber = Subscriber(self, feed, outlet, watcher=watcher, send=send, release=release)
        self._subscribers.add(subscriber)
        if self._is_closing:
            subscriber.end()
        return subscriber

    def forget(self, subscriber: Subscriber, feed: Feed) -> bool:
        """A subscriber has come to its end; False if it had before."""
        if subscriber not in self._subscribers:
            return False
        self._subscribers.discard(subscriber)
        feed.members -= 1
        if feed.members == 0:
            feed.close()
            del self._feeds[feed.task_id]
        return True

    def spawn(self, work: Work) -> "asyncio.Task[None]":
        """Do a subscriber's work beside everything else."""
        task = asyncio.create_task(_guarded(work))
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task

    async def read_page(self, task_id: int, after: int, most: int) -> Page | None:
        """A page of the log; None while the database is away.

        Read inline it is one page at each turn of the loop for all who replay: however many they are, what is live
        waits for one page.
        """
        async with self._turn:
            try:
                page = await self._events.read_page(task_id, after=after, most=most)
            except Refused as refused:
                if refused.code != "database_unavailable":
                    raise
                return None
            await asyncio.sleep(0)  # what is ready goes first
            return page

    async def beat(self) -> None:
        """See to the heartbeats of who is live: once in BEAT_SECONDS for all streams."""
        now = asyncio.get_running_loop().time()
        for feed in tuple(self._feeds.values()):
            feed.beat(now)

    async def look_at_logins(self) -> None:
        """End the streams of those who have logged out. Takes as long as looks at the database take.

        While that goes on, who calls it again returns at once: a further round follows.
        """
        self._must_look = True
        if self._is_looking:
            return
        self._is_looking = True
        try:
            while self._must_look:
                self._must_look = False
                await self._look_once()
        finally:
            self._is_looking = False

    async def _look_once(self) -> None:
        for count, subscriber in enumerate(tuple(self._subscribers), 1):
            if not await subscriber.is_allowed():
                subscriber.end()
            if count % ASKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # others get their turn

    def close(self) -> None:
        """End all streams; their clients resume by Last-Event-ID."""
        self._is_closing = True
        for subscriber in tuple(self._subscribers):
            subscriber.end()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._cut)

    def _cut(self) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber.outlet.abort()


async def _guarded(work: Work) -> None:
    try:
        await work()
    except Exception:  # the edge of a task nobody awaits
        log.exception("a stream failed")
