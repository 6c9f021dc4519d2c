"""A task's live end: the events that have just been committed, written once to all who have everything before them.

Frames come in the order of the log from commits of this process; where another one has committed them, or one is
missing in between, the feed reads the store. The first frames after a quiet moment are written at once (leading edge),
what comes within a tick of them together. To a crowd a chunk is written in slices, between which others get their turn.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from beray.protocol.sse import HEARTBEAT, HEARTBEAT_SECONDS
from beray.server.errors import Refused
from beray.server.events.log import EventLog, is_finished
from beray.server.tasks.stream.outlets import Chunk

if TYPE_CHECKING:
    from beray.server.tasks.stream.subscriber import Subscriber

TICK_SECONDS: Final = 0.010  # perf: at 200 events/s to 1000 watchers it saves 0.4 of the processor time
TICK_MOST_SECONDS: Final = 0.025  # when writing takes long, or the loop is late
SLICE: Final = 500  # subscribers written to at a stretch: some 5 ms
AWAY_SECONDS: Final = 5.0  # between looks while the database is away

Write = Callable[[bytes], None]

log = logging.getLogger("beray.stream")


class Feed:
    """The live subscribers of one task. Lives on the event loop.

    Attributes:
        task_id: The task.
        slow: Of those who are live, those whose clients read too slowly.
        members: How many watch the task, live or not yet.
        version: Rises whenever something was heard.
    """

    def __init__(self, events: EventLog, task_id: int) -> None:
        self._events = events
        self.task_id = task_id
        self._loop = asyncio.get_running_loop()
        self.slow: set[Subscriber] = set()
        self._direct: dict[Subscriber, Write] = {}  # who is live: has every event up to the last chunk
        self._stepped: set[Subscriber] = set()  # those of them who have no such way
        self.members = 0
        self.version = 0
        self._head: int | None = None  # the last event it knows; None until somebody knows where the log ends
        self._pending: list[bytes] = []
        self._sent = 0  # the last event of the last chunk
        self._tick_seconds = TICK_SECONDS
        self._written_at = self._loop.time() - TICK_SECONDS
        self._timer: asyncio.Handle | None = None
        self._writing: deque[tuple[Chunk, Iterator[tuple[Subscriber, Write]]]] = deque()
        self._spent_seconds = 0.0  # on the chunk that is being written
        self._looking: asyncio.Task[None] | None = None
        self._must_look = False
        self._change: asyncio.Event | None = None

    def hear(self, first_seq: int, frames: Sequence[bytes]) -> None:
        """The log has grown: by these frames; none: by whatever the store has, or the task is gone."""
        self.version += 1
        self._tell_change()
        if self._head is None:
            return
        known = self._head + 1 - first_seq
        if not frames or known < 0:
            self.look()
        elif known < len(frames):
            self._pending.extend(frames[known:])
            self._head = first_seq + len(frames) - 1
            self._schedule()

    def change(self) -> asyncio.Event:
        """Is set at the next change; for those who are not live. Get it, read the store, then wait for it."""
        if self._change is None:
            self._change = asyncio.Event()
        return self._change

    def join(self, subscriber: "Subscriber", version: int) -> bool:
        """Make a subscriber live that has all the store had; False: there is more now, or soon, which `change` tells.

        Args:
            subscriber: It.
            version: The feed's before it read the store.
        """
        if self._head is None and version == self.version:
            self._head = self._sent = subscriber.cursor
        if self._head != subscriber.cursor:
            if self._head is not None and self._head < subscriber.cursor:
                self.look()  # what it has read has been committed, and nobody has told so yet
            return False
        self.flush()  # it has read what waits here
        if subscriber.direct is None:
            self._stepped.add(subscriber)
        else:
            self._direct[subscriber] = subscriber.direct
        subscriber.live_after = subscriber.cursor
        return True

    @property
    def live(self) -> "tuple[Subscriber, ...]":
        """Who is written to."""
        return (*self._direct, *self._stepped)

    def drop(self, subscriber: "Subscriber") -> None:
        """Write to it no more."""
        self._direct.pop(subscriber, None)
        self._stepped.discard(subscriber)
        self.slow.discard(subscriber)

    def look(self) -> None:
        """Read what is in the store beyond the head."""
        self._must_look = True
        if self._looking is None:
            self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._must_look:
                self._must_look = False
                await self._look_once()
        except Exception:  # the edge of a task nobody awaits; the next notice, or heartbeat, looks again
            log.exception("reading events failed", extra={"task_id": self.task_id})
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        head = self._head
        if head is None:
            return
        try:
            page = await self._events.read_page(self.task_id, after=head)
        except Refused as refused:
            if refused.code != "database_unavailable":
                raise
            self._must_look = True
            await asyncio.sleep(AWAY_SECONDS)
            return
        if page.frames:
            self.hear(head + 1, page.frames)
        elif page.tail is None:  # the task is gone
            self.end()
        self._must_look = self._must_look or not page.is_last

    def end(self) -> None:
        """End the streams of all who are live."""
        for subscriber in self.live:
            subscriber.end()
        self._tell_change()

    def beat(self, now: float) -> None:
        """Show who is live that the connection lives, if nothing has for a while; and look for what was not told."""
        if (self._direct or self._stepped) and not self._writing and now >= self._written_at + HEARTBEAT_SECONDS:
            self._begin(Chunk(HEARTBEAT, self._sent, self._sent))
            self.look()

    def close(self) -> None:
        """Nobody watches any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        assert self._head is not None, "frames are kept once the head is known"
        chunk = Chunk(b"".join(self._pending), self._sent, self._head, is_end=is_finished(self._pending[-1]))
        self._pending.clear()
        self._sent = self._head
        self._begin(chunk)

    def _tell_change(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    def _schedule(self) -> None:
        if self._timer is not None or self._writing:
            return
        wait_seconds = self._written_at + self._tick_seconds - self._loop.time()
        if wait_seconds > 0:
            self._timer = self._loop.call_later(wait_seconds, self.flush)
        else:
            self._timer = self._loop.call_soon(self.flush)

    def _begin(self, chunk: Chunk) -> None:
        if self.slow and not chunk.is_comment and not self._writing:  # else what is on its way would come too late
            self._set_aside(chunk.before)
        for subscriber in tuple(self._stepped):
            subscriber.write(chunk)
        self._writing.append((chunk, iter(tuple(self._direct.items()))))
        if len(self._writing) == 1:
            self._write_slice()

    def _set_aside(self, cursor: int) -> None:
        for subscriber in tuple(self.slow):
            if subscriber in self._direct:
                subscriber.fall_behind(cursor)

    def _write_slice(self) -> None:
        started = self._loop.time()
        chunk, rest = self._writing[0]
        is_done = _write(chunk, rest)
        self._spent_seconds += self._loop.time() - started
        if is_done:
            self._end_chunk(chunk)
        if self._writing:
            self._loop.call_soon(self._write_slice)
        elif self._pending:
            self._schedule()

    def _end_chunk(self, chunk: Chunk) -> None:
        self._writing.popleft()
        self._written_at = self._loop.time()
        self._tick_seconds = min(max(TICK_SECONDS, 2 * self._spent_seconds), TICK_MOST_SECONDS)
        self._spent_seconds = 0.0
        if chunk.is_end:
            for subscriber in self.live:
                if subscriber.live_after < chunk.last:
                    subscriber.end()


def _write(chunk: Chunk, subscribers: "Iterator[tuple[Subscriber, Write]]") -> bool:
    """Write the chunk to a slice of those who were live when it came; whether all have been written to."""
    http, before = chunk.http, chunk.before
    for count, (subscriber, write) in enumerate(subscribers, 1):
        if subscriber.live_after <= before:  # it may have left since, or even left, read the chunk and joined again
            try:
                write(http)
            except RuntimeError:  # closed; its connection is about to tell
                log.debug("writing to a closed connection", exc_info=True)
        if count == SLICE:
            return False
    return True
