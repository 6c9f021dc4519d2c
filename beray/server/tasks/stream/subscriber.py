"""One watcher of a task: first a cursor over the store, then live.

A replay, a reader that is too slow to be written to and one that can't be written to without waiting are the same: a
task reads the store from the cursor and waits until each page is taken. When it has all, the watcher becomes live and
the task ends.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Message, Send

from beray.protocol.sse import HEARTBEAT, HEARTBEAT_SECONDS
from beray.server.events.log import PAGE, frame_seq, is_finished
from beray.server.events.wakeups import wait_changed
from beray.server.tasks.stream.feed import AWAY_SECONDS, Feed
from beray.server.tasks.stream.outlets import Chunk, Kept, Outlet, Taken, TransportOutlet

if TYPE_CHECKING:
    from beray.server.tasks.stream.hub import Hub


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


NOT_LIVE: Final = sys.maxsize
END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}

log = logging.getLogger("beray.stream")


class Subscriber:
    """A watcher, from its first event to its last.

    Args:
        hub: What it belongs to.
        feed: Its task's.
        outlet: By which it is written to.
        watcher: Who it is.
        send: The server's `send`, which waits.
        release: Called once, at its end.

    Attributes:
        cursor: The `seq` of the last event it has been sent; not kept up while it is live.
        live_after: The `seq` of the last event it had when it became live; NOT_LIVE: it is not written to.
        is_allowed: Whether its user is still logged in.
        outlet: Its outlet.
        direct: How it is written to directly; None: by its outlet's `write`.
    """

    __slots__ = (
        "_feed",
        "_has_begun",
        "_hub",
        "_is_ended",
        "_is_paused",
        "_release",
        "_send",
        "_work",
        "cursor",
        "direct",
        "is_allowed",
        "live_after",
        "outlet",
    )

    def __init__(
        self, hub: "Hub", feed: Feed, outlet: Outlet, *, watcher: Watcher, send: Send, release: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._send = send
        self._release = release
        self._has_begun = False
        self._is_ended = False
        self._is_paused = False
        self._work: asyncio.Task[None] | None = None
        self.outlet = outlet
        self.direct: Callable[[bytes], None] | None = None
        self.is_allowed = watcher.is_allowed
        self.cursor = watcher.after
        self.live_after = NOT_LIVE

    def begin(self) -> None:
        """Send: from the cursor on."""
        self._has_begun = True
        self._start(self._send_end if self._is_ended else self._follow)

    def keep(self, keep: Callable[[Kept], None]) -> None:
        """Go on when the application has returned; the connection tells how its client reads."""
        if isinstance(self.outlet, TransportOutlet):
            self.direct = self.outlet.direct
            self.outlet.limit()
        keep(self)

    def write(self, chunk: Chunk) -> None:
        """Be written to."""
        try:
            taken = self.outlet.write(chunk)
        except Exception:  # of the server's `send`: it is this watcher's alone
            log.exception("writing to a watcher failed", extra={"task_id": self._feed.task_id})
            self.end()
            return
        if taken is Taken.LATER:
            self.fall_behind(chunk.last)
        elif taken is Taken.NO and not chunk.is_comment:
            self.fall_behind(chunk.before)

    def fall_behind(self, cursor: int) -> None:
        """Be live no more: go on from the store, after this event."""
        self._leave_live(cursor)
        self._start(self._follow)

    def paused(self) -> None:
        """The client reads too slowly: what comes next is not written to it."""
        self._is_paused = True
        if self.live_after != NOT_LIVE:
            self._feed.slow.add(self)

    def resumed(self) -> None:
        """It has read."""
        self._is_paused = False
        self._feed.slow.discard(self)

    def end(self) -> None:
        """End the stream, after what was written."""
        if self._is_ended:
            return
        self._is_ended = True
        self._leave_live(self.cursor)
        if self._has_begun:
            self._stop()
            self._start(self._send_end)

    def lost(self) -> None:
        """The watcher has gone."""
        self._stop()
        self._leave()

    def _leave(self) -> None:
        self._is_ended = True
        self._leave_live(self.cursor)
        if self._hub.forget(self, self._feed):
            self._release()

    def _leave_live(self, cursor: int) -> None:
        self.cursor = cursor
        self.live_after = NOT_LIVE
        self._feed.drop(self)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = self._hub.spawn(work)

    def _stop(self) -> None:
        if self._work is not None:
            self._work.cancel()
            self._work = None

    async def _send_end(self) -> None:
        try:
            await self.outlet.finish()
            await self._send(END)
        finally:
            self._leave()

    async def _follow(self) -> None:
        """From the cursor to the end of the log; then live, or on by the cursor."""
        try:
            await self.outlet.finish()
            while True:
                version, changed = self._feed.version, self._feed.change()
                is_at_end = await self._catch_up()
                if is_at_end is None:
                    break
                if self._is_paused:  # to be live it must have read: `send` waits for that
                    await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
                    continue
                if is_at_end and self.outlet.can_push and self._feed.join(self, version):
                    self._work = None
                    return
                if not await wait_changed(changed, HEARTBEAT_SECONDS):
                    await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        except Exception:  # the edge of a task nobody awaits: the client resumes where this stream ended
            log.exception("stream failed", extra={"task_id": self._feed.task_id})
        self._is_ended = True
        await self._send_end()

    async def _catch_up(self) -> bool | None:
        """Send what the store has beyond the cursor.

        Returns:
            True: the cursor is at the end of the log; False: beyond it; None: the stream is at its end.
        """
        most = PAGE
        while True:
            page = await self._hub.read_page(self._feed.task_id, self.cursor, most)
            if page is None:
                await asyncio.sleep(AWAY_SECONDS)
                await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
                continue
            if page.frames:
                await self._send({"type": "http.response.body", "body": b"".join(page.frames), "more_body": True})
                self.cursor = frame_seq(page.frames[-1])
            if page.is_last:
                break
            most = page.next_most(most)
        if page.tail is None or (is_finished(page.tail) and frame_seq(page.tail) <= self.cursor):
            return None
        return frame_seq(page.tail) == self.cursor
