"""What a user's files take on the disk, and the room that is left for uploads.

Each task's row keeps what its folder takes: changed by every upload and removal, measured anew when a run ends. A
user's sum is then one look in an index, the same for all processes. An upload does not wait for its row: it holds its
room until that is written. What is being uploaded in this process counts as stored; what is in other processes does
once it is written, so a user at several of them may get over the limit by the uploads that are under way there. What a
command of a running task writes counts when `measure` is told to look.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from beray.server.db import stored as queries
from beray.server.db.attempts import Attempt
from beray.server.db.connect import Queries
from beray.server.errors import STORAGE_FAULTS, Refused
from beray.server.work_dirs.work_dir import WorkDirs

NO_TASK: Final = 0  # ids begin at 1

log = logging.getLogger("beray.files")


@dataclass(frozen=True)
class Measured:
    """Bytes that a task's folder takes, and what was known of it when the measuring began."""

    size: int
    before: int | None


class StoredBytes:
    """Tells what users store.

    Args:
        database: Open before the first call.
        work_dirs: Where their files are.
        most: Bytes one user may store; 0: no limit.
    """

    def __init__(self, database: Queries, work_dirs: WorkDirs, *, most: int) -> None:
        self._database = database
        self._work_dirs = work_dirs
        self.most = most
        self._coming: Counter[int] = Counter()
        self._jobs: set[asyncio.Task[None]] = set()

    async def settle(self) -> None:
        """Wait until what uploads took has been kept; call it before the database is closed."""
        if self._jobs:
            await asyncio.wait(self._jobs)

    async def of_user(self, user_id: int, *, but: int = NO_TASK) -> int:
        """Bytes that the user's tasks take on the disk, without the task `but`, as far as is known now."""
        few = await self._database.read(lambda connection: queries.sum_of_few(connection, user_id, but=but))
        if few is not None:
            return few
        while unmeasured := await self._database.read(lambda connection: queries.list_unmeasured(connection, user_id)):
            for task_id in unmeasured:
                await self.measure(task_id)
        return await self._database.scan(lambda connection: queries.sum_bytes(connection, user_id, but=but))

    async def of_task(self, task_id: int) -> int | None:
        """Bytes that the task's files take, as far as is known now; None: not measured."""
        return await self._database.read(lambda connection: queries.get_bytes(connection, task_id))

    async def look(self, task_id: int) -> Measured:
        """Measure a task's folder; what it takes is not kept.

        Raises:
            OSError: The disk does not answer.
        """
        before = await self.of_task(task_id)
        return Measured(await asyncio.to_thread(self._work_dirs.measure, task_id), before)

    async def measure(self, task_id: int) -> int:
        """Measure a task's folder and keep what it takes. Raises as `look`."""
        found = await self.look(task_id)
        await self.keep(task_id, found)
        return found.size

    async def keep(self, task_id: int, found: Measured, *, attempt: Attempt | None = None) -> None:
        """Keep what was measured; with `attempt`, only if this is still the task's."""
        await self._database.write(
            lambda connection: queries.put_bytes(connection, task_id, found.size, before=found.before, attempt=attempt)
        )

    def note_written(self, task_id: int, growth: int, room: "Room") -> None:
        """Keep, soon, that a task's files have come to take so much more (or less); until then `room` is held."""
        job = asyncio.create_task(self._keep(task_id, growth))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        room.hold_until(job)

    async def note_removed(self, task_id: int, freed: int | None) -> None:
        """Keep that a task's files take so much less; None: measure what is left."""
        await self._keep(task_id, None if freed is None else -freed)

    async def _keep(self, task_id: int, change: int | None) -> None:
        """What can't be measured or kept now undoes no file: the next measuring makes it good."""
        try:
            if change is None:
                await self.measure(task_id)
            elif change != 0:
                await self._database.write(lambda connection: queries.add_bytes(connection, task_id, change))
        except Refused as refused:
            if refused.code not in STORAGE_FAULTS | {"outcome_unknown"}:
                raise
            log.warning("what the files of task %s take could not be kept: %s", task_id, refused.code)
        except OSError:
            log.warning("the files of task %s could not be measured", task_id, exc_info=True)

    async def require_any(self, user_id: int) -> None:
        """Raise if the user has filled their store.

        Raises:
            Refused: `storage_full`.
        """
        if self.most and (used := await self.of_user(user_id)) >= self.most:
            raise Refused("storage_full", used=used, limit=self.most)

    @asynccontextmanager
    async def room(self, user_id: int) -> AsyncIterator["Room"]:
        """Room for one upload of the user, held until the block ends, or longer (`note_written`)."""
        room = Room(self, user_id)
        try:
            yield room
        finally:
            room.leave()

    async def require(self, user_id: int, more: int, *, held: int) -> None:
        """Raise unless the user may store so many bytes more than what is stored and coming.

        What has just been written may count twice for a moment, as stored and as coming: nobody is refused for that.

        Args:
            user_id: Whose upload it is.
            more: What it wants to hold, 0 for no more than it does.
            held: What of it is coming already; told apart in the refusal.

        Raises:
            Refused: `storage_full`.
        """
        if self.most == 0 or await self.of_user(user_id) + self._coming[user_id] + more <= self.most:
            return
        await self.settle()
        taken = await self.of_user(user_id) + self._coming[user_id]
        if taken + more > self.most:
            raise Refused("storage_full", used=taken - held, limit=self.most)

    def hold(self, user_id: int, change: int) -> None:
        """Let so much more, or less, of the user's be coming."""
        self._coming[user_id] += change
        if self._coming[user_id] == 0:
            del self._coming[user_id]


class Room:
    """What one upload takes while it comes in."""

    def __init__(self, stored: StoredBytes, user_id: int) -> None:
        self._stored = stored
        self._user_id = user_id
        self._held = 0
        self._job: asyncio.Task[None] | None = None

    async def grow_to(self, size: int) -> None:
        """The upload has, or will have, so many bytes.

        Raises:
            Refused: `storage_full`.
        """
        more = size - self._held
        if more > 0:
            await self._stored.require(self._user_id, more, held=self._held)
            self._stored.hold(self._user_id, more)
            self._held += more

    async def confirm(self) -> None:
        """Look once more, before the upload is put in its place: other processes may have stored something.

        Raises:
            Refused: `storage_full`.
        """
        if self._held:
            await self._stored.require(self._user_id, 0, held=self._held)

    def hold_until(self, job: asyncio.Task[None]) -> None:
        """Leave only when the job is done."""
        self._job = job

    def leave(self) -> None:
        """Give the room back when it counts as stored, or never will."""
        if self._job is not None and not self._job.done():
            self._job.add_done_callback(lambda job: self._give_back())
        else:
            self._give_back()

    def _give_back(self) -> None:
        self._stored.hold(self._user_id, -self._held)
        self._held = 0
