"""What a user's files take on the disk, and the room that is left for uploads.

Each task's row keeps what its folder takes: changed by every upload and removal, measured anew when a run ends. A
user's sum is then one look in an index, the same for all processes. What is being uploaded in this process counts as
stored; what is in other processes does once it is written, so a user at several of them may get over the limit by the
uploads that are under way there. What a command of a running task writes counts when `measure` is told to look.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from beray.server.db import stored as queries
from beray.server.db.connect import Queries
from beray.server.errors import STORAGE_FAULTS, Refused
from beray.server.work_dirs.work_dir import WorkDirs

log = logging.getLogger("beray.files")


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
        self._most = most
        self._coming: Counter[int] = Counter()

    async def of_user(self, user_id: int) -> int:
        """Bytes that the user's tasks take on the disk, as far as is known now."""
        while unmeasured := await self._database.read(lambda connection: queries.list_unmeasured(connection, user_id)):
            for task_id in unmeasured:
                await self.measure(task_id)
        return await self._database.read(lambda connection: queries.sum_bytes(connection, user_id))

    async def measure(self, task_id: int) -> int:
        """Measure a task's folder and keep what it takes."""
        size = await asyncio.to_thread(self._work_dirs.measure, task_id)
        await self._database.write(lambda connection: queries.put_bytes(connection, task_id, size))
        return size

    async def keep(self, task_id: int, change: int | None) -> None:
        """Keep that a task's files take so much more, or less (None: measure them), after they do.

        A database that can't take it now undoes no file: the next measuring makes it good.
        """
        try:
            if change is None:
                await self.measure(task_id)
            elif change != 0:
                await self._database.write(lambda connection: queries.add_bytes(connection, task_id, change))
        except Refused as refused:
            if refused.code not in STORAGE_FAULTS | {"outcome_unknown"}:
                raise
            log.warning("what the files of task %s take could not be kept: %s", task_id, refused.code)

    @asynccontextmanager
    async def room(self, user_id: int) -> AsyncIterator["Room"]:
        """Room for one upload of the user, held until the block ends."""
        stored = await self.of_user(user_id) if self._most else 0
        room = Room(self._coming, user_id, stored=stored, most=self._most)
        try:
            yield room
        finally:
            room.leave()


class Room:
    """What one upload takes while it comes in."""

    def __init__(self, coming: Counter[int], user_id: int, *, stored: int, most: int) -> None:
        self._coming = coming
        self._user_id = user_id
        self._stored = stored
        self._most = most
        self._held = 0

    def grow_to(self, size: int) -> None:
        """The upload has, or will have, so many bytes.

        Raises:
            Refused: `storage_full`.
        """
        more = max(0, size - self._held)
        taken = self._stored + self._coming[self._user_id]
        if self._most and more and taken + more > self._most:
            raise Refused("storage_full", used=taken, limit=self._most)
        self._held += more
        self._coming[self._user_id] += more

    def leave(self) -> None:
        """Give the room back: it counts as stored by now, or never will."""
        self._coming[self._user_id] -= self._held
        self._held = 0
        if self._coming[self._user_id] == 0:
            del self._coming[self._user_id]
