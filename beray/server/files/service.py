"""A task's files, for its owner: list, read, write, remove, take as a ZIP; and what its tool calls have printed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from beray.server.audit import AuditTrail
from beray.server.db.auth import UserRow
from beray.server.db.tables import ID_MOST
from beray.server.errors import Refused, shown
from beray.server.files.conditions import matches
from beray.server.files.digest import sha256_of
from beray.server.files.streaming import close_after, in_thread, open_in_thread
from beray.server.files.turns import IsGone, Turns
from beray.server.files.x_accel import XAccel
from beray.server.files.zipstream import ZipPieces
from beray.server.work_dirs.open_file import OpenFile
from beray.server.work_dirs.outputs import KeptOutput, Outputs
from beray.server.work_dirs.stored import Room, StoredBytes
from beray.server.work_dirs.upload import Upload, Written
from beray.server.work_dirs.work_dir import WorkDir

OpenWorkDir = Callable[[UserRow, int], Awaitable[WorkDir]]
"""The work_dir of a user's task; raises `Refused("task_not_found")` for anybody else's."""

FindOutputs = Callable[[UserRow, int], Awaitable[Outputs]]
"""The outputs of the calls of a user's task; raises the same."""

GATHER_BYTES: Final = 1 << 20  # a thread call for each 64 KB as it comes costs 1.3x the CPU
KEPT_LEAST: Final = 16 << 10  # a chunk so large is written as it came, without a copy; smaller ones are joined
WALKS_MOST: Final = 2  # of one user at a time: a folder of 500,000 files takes seconds, and threads are few
ARCHIVES_MOST: Final = 4  # each may hold 128 descriptors, one for each level of a folder, and some MB
DIGEST_SECONDS: Final = 20  # the wait for a turn included; a client waits 30 s for headers
DIGESTS_MOST: Final = 2  # each takes a thread for as long as the file is read
UPLOADS_MOST: Final = 16  # each holds three descriptors
BODY_SECONDS: Final = 60  # an upload that brings nothing for so long is cut
BODY_LOOK_SECONDS: Final = 1  # a timer for each chunk would cost more than taking it


@dataclass(frozen=True)
class Expectation:
    """What must be true of the target for an upload to replace it (If-Match, If-None-Match)."""

    if_match: str | None = None
    if_none_match: str | None = None

    def is_met(self, etag: str | None) -> bool:
        """Whether what is there (None: nothing) is as expected."""
        if self.if_match is not None and not matches(self.if_match, etag, is_weak_fine=False):
            return False
        return self.if_none_match is None or not matches(self.if_none_match, etag, is_weak_fine=True)


class Files:
    """The rules of files. Every method raises `Refused`; `task_not_found` unless the task is the user's.

    Attributes:
        x_accel: How files are left to nginx; None: they are not.
    """

    def __init__(
        self,
        open_work_dir: OpenWorkDir,
        stored: StoredBytes,
        trail: AuditTrail,
        *,
        find_outputs: FindOutputs,
        max_upload_bytes: int,
        x_accel: XAccel | None = None,
    ) -> None:
        self.x_accel = x_accel
        self._open_work_dir = open_work_dir
        self._find_outputs = find_outputs
        self._stored = stored
        self._trail = trail
        self._max_upload_bytes = max_upload_bytes
        self._walks = Turns(WALKS_MOST)
        self._archives = Turns(ARCHIVES_MOST)
        self._uploads = Turns(UPLOADS_MOST)
        self._digests = Turns(DIGESTS_MOST)

    async def list_tree(
        self, user: UserRow, task_id: int, path: str, *, depth: int | None, limit: int, is_gone: IsGone
    ) -> tuple[bytes, bool]:
        """The tree as JSON, and whether the top folder itself was cut."""
        work_dir = await self._work_dir(user, task_id)

        def read() -> tuple[bytes, bool]:
            tree = work_dir.list_tree(path, depth=depth, limit=limit)
            return orjson.dumps(tree.nodes), tree.is_truncated

        async with self._walks.taken(user.id, is_gone):
            return await in_thread(read)

    async def open_file(self, user: UserRow, task_id: int, path: str) -> OpenFile:
        """The open file; the caller closes it."""
        work_dir = await self._work_dir(user, task_id)
        return await open_in_thread(partial(work_dir.open_file, path))

    async def open_output(self, user: UserRow, task_id: int, call_id: str) -> KeptOutput:
        """What a tool call has printed; the caller closes it."""
        outputs = await self._find_outputs(user, task_id)
        return await open_in_thread(partial(outputs.open, call_id))

    async def digest(self, user: UserRow, file: OpenFile, *, is_gone: IsGone) -> bytes | None:
        """The SHA-256 of a file that `open_file` opened; None where it can't be had in time."""
        try:
            async with asyncio.timeout(DIGEST_SECONDS), self._digests.taken(user.id, is_gone):
                return await sha256_of(file, is_gone)
        except TimeoutError:
            return None

    async def upload(
        self,
        user: UserRow,
        task_id: int,
        path: str,
        body: AsyncIterator[bytes],
        *,
        announced_bytes: int | None,
        expectation: Expectation,
    ) -> Written:
        """Write a file from a body: all of it, or nothing changes.

        Raises:
            Refused: `upload_too_large`, `storage_full` (both before reading if it was announced), `upload_cut`,
                `precondition_failed`, `disk_full`, or what is wrong with the path.
        """
        work_dir = await self._work_dir(user, task_id)
        if announced_bytes is not None and announced_bytes > self._max_upload_bytes:
            raise Refused("upload_too_large", limit=self._max_upload_bytes)
        begin = partial(work_dir.begin_write, path, limit_bytes=self._max_upload_bytes)
        async with self._uploads.taken(user.id, _is_here), self._stored.room(user.id) as room:
            await room.grow_to(announced_bytes or 0)
            writer = _Writer(await open_in_thread(partial(_Closing, begin)), room)
            try:
                await _pour(body, writer)
                written = await writer.commit(expectation.is_met)
            finally:
                writer.close()
            self._trail.note(self._trail.row("file.written", user=user, task_id=task_id, resource=written.path))
            self._stored.note_written(task_id, written.growth, room)
        return written

    async def remove(self, user: UserRow, task_id: int, path: str, *, is_gone: IsGone) -> None:
        """Remove a file, a link or a whole folder."""
        work_dir = await self._work_dir(user, task_id)
        async with self._walks.taken(user.id, is_gone):
            freed = await in_thread(partial(work_dir.remove, path))
            self._trail.note(self._trail.row("file.deleted", user=user, task_id=task_id, resource=shown(path)))
            await self._stored.note_removed(task_id, freed)

    async def open_zip(self, user: UserRow, task_id: int, paths: Sequence[str], *, is_gone: IsGone) -> "Archive":
        """An archive of the paths (none: of everything); the caller closes it. A missing path is refused here."""
        work_dir = await self._work_dir(user, task_id)
        give_back = await self._archives.take(user.id, is_gone)
        try:
            async with self._walks.taken(user.id, is_gone):
                return Archive(await open_in_thread(lambda: ZipPieces(work_dir.walk(paths))), give_back)
        except BaseException:
            give_back()
            raise

    async def _work_dir(self, user: UserRow, task_id: int) -> WorkDir:
        if not 0 < task_id <= ID_MOST:
            raise Refused("task_not_found", task_id=task_id)
        return await self._open_work_dir(user, task_id)


async def _is_here() -> bool:
    """Whether an uploading client has gone is told by its body, which nobody else may read."""
    return False


class Archive:
    """The pieces of an archive; holds one of its user's turns until it is closed."""

    def __init__(self, pieces: ZipPieces, give_back: Callable[[], None]) -> None:
        self.next = pieces.next
        self._pieces = pieces
        self._give_back: Callable[[], None] | None = give_back

    def close(self) -> None:
        """Release what it holds; twice is harmless."""
        self._pieces.close()
        if self._give_back is not None:
            self._give_back()
            self._give_back = None


class _Closing:
    """An upload that is closed by aborting it."""

    def __init__(self, begin: Callable[[], Upload]) -> None:
        self.upload = begin()

    def close(self) -> None:
        self.upload.abort()


class _Writer:
    """Writes in a thread while the next bytes come in: one piece being written, one being gathered."""

    def __init__(self, target: _Closing, room: Room) -> None:
        self._target = target
        self._room = room
        self._size = 0
        self._gathered: list[bytes | bytearray] = []
        self._gathered_size = 0
        self._working: asyncio.Future[None] | asyncio.Future[Written] | None = None

    async def add(self, chunk: bytes) -> None:
        if len(chunk) >= KEPT_LEAST:
            self._gathered.append(chunk)
        else:
            self._join(chunk)
        self._gathered_size += len(chunk)
        if self._gathered_size >= GATHER_BYTES:
            await self._flush()

    def _join(self, chunk: bytes) -> None:
        last = self._gathered[-1] if self._gathered else None
        if isinstance(last, bytearray):
            last += chunk
        else:
            self._gathered.append(bytearray(chunk))

    async def commit(self, if_match: Callable[[str | None], bool]) -> Written:
        await self._flush()
        await self._settle()
        await self._room.confirm()
        committing = in_thread(partial(self._target.upload.commit, if_match))
        self._working = committing
        return await asyncio.shield(committing)

    def close(self) -> None:
        """Undo what was not committed, once no thread is at it."""
        close_after(self._working, self._target)

    async def _flush(self) -> None:
        await self._settle()
        chunks, self._gathered = self._gathered, []
        self._size += self._gathered_size
        self._gathered_size = 0
        await self._room.grow_to(self._size)
        self._working = in_thread(partial(self._target.upload.write, *chunks))

    async def _settle(self) -> None:
        if self._working is not None:
            await asyncio.shield(self._working)


async def _pour(body: AsyncIterator[bytes], writer: _Writer) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(BODY_SECONDS) as patience:
            set_at = loop.time()
            async for chunk in body:
                await writer.add(chunk)
                if (now := loop.time()) - set_at > BODY_LOOK_SECONDS:
                    patience.reschedule(now + BODY_SECONDS)
                    set_at = now
    except TimeoutError as error:
        raise Refused("upload_cut") from error
