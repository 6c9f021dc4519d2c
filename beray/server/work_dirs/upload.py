"""Write a file as a whole or not at all.

The bytes go to a file without a name (`O_TMPFILE`): nobody sees half an upload, and one cut by a crash leaves nothing
behind. `commit` makes it durable, gives it a name and moves that over the target in one step, so a reader sees the old
content or the new. Where the file system has no nameless files the temporary one has a hidden name in the work_dir.
"""

import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from beray.server.errors import Refused, shown
from beray.server.work_dirs.confined import (
    FolderMaker,
    Place,
    is_folder,
    locate,
    refusals,
    stat_or_none,
    sync_folder,
)
from beray.server.work_dirs.open_file import etag_of
from beray.server.work_dirs.paths import Parts, wire_path
from beray.server.work_dirs.usage import disk_bytes, freed_bytes

TEMPORARY_PREFIX: Final = b".beray-upload-"
"""Names that begin so are ours and are left out wherever a work_dir is listed."""

CHUNKS_MOST: Final = 1024  # that one call of the kernel's takes

_SMALL_DISK_PART: Final = 20  # of a small disk only so much is left free (as `sandbox/guard/disk.py` has it)

# Between the check of If-Match and the rename nobody else may commit. One lock for all: it is held for microseconds.
_commit_lock = threading.Lock()


@dataclass(frozen=True)
class Written:
    """What was written: wire path, bytes, SHA-256 in hex, whether nothing was there before, and its entity tag.

    `growth`: bytes of the disk that the work_dir takes more than before; less than 0 if a larger file was replaced.
    """

    path: str
    size: int
    sha256: str
    is_new: bool
    etag: str
    growth: int


class Upload:
    """A file being written: `write` any number of times, then `commit`; `abort`, or leaving `with`, undoes it.

    Made by `WorkDir.begin_write`. One thread at a time.
    """

    def __init__(
        self, root: int, parts: Parts, *, owner: int | None, limit_bytes: int, min_free_bytes: int = 0
    ) -> None:
        """Takes over the descriptor `root` of the work_dir."""
        self._root = root
        self._parts = parts
        self._owner = owner
        self._limit = limit_bytes
        self._min_free = min_free_bytes
        self._size = 0
        self._freed = 0
        self._hash = hashlib.sha256()
        self._temporary_name: bytes | None = None
        self._fd = -1
        try:
            with refusals(parts):
                self._refuse_folder()
                self._fd = self._open_temporary()
        except BaseException:
            self.abort()
            raise

    def write(self, *chunks: bytes | bytearray) -> None:
        """Append the chunks, at most `CHUNKS_MOST`.

        Raises:
            Refused: `upload_too_large`, `disk_full`.
        """
        size = sum(map(len, chunks))
        self._size += size
        if self._size > self._limit:
            raise Refused("upload_too_large", limit=self._limit)
        for chunk in chunks:
            self._hash.update(chunk)
        with refusals(self._parts):
            self._leave_room()
            written = 0
            while written < size:
                written += os.writev(self._fd, _behind(chunks, written))

    def _leave_room(self) -> None:
        """The last of the disk is the database's: without it nothing could even be deleted."""
        disk = os.fstatvfs(self._fd)
        least = min(self._min_free, disk.f_blocks * disk.f_frsize // _SMALL_DISK_PART)
        if disk.f_bavail * disk.f_frsize < least:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def commit(self, if_match: Callable[[str | None], bool] | None = None) -> Written:
        """Put the file in its place, durably.

        Args:
            if_match: Asked with the entity tag of the file that is there (None: there is none); False refuses.

        Raises:
            Refused: `precondition_failed`, `path_is_directory`, `disk_full`, or the path can't be walked any more.
        """
        with refusals(self._parts):
            self._give_away()
            os.fsync(self._fd)
            with locate(self._root, self._parts, follows_last=False, maker=FolderMaker(self._owner)) as place:
                with _commit_lock:
                    is_new = self._replace(place, if_match)
                sync_folder(place.folder)
            status = os.fstat(self._fd)
        self.abort()
        growth = disk_bytes(status) - self._freed
        return Written(wire_path(self._parts), self._size, self._hash.hexdigest(), is_new, etag_of(status), growth)

    def abort(self) -> None:
        """Forget it; what was there stays. Does nothing after a commit."""
        if self._temporary_name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary_name, dir_fd=self._root)
            self._temporary_name = None
        for descriptor in (self._fd, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._root = -1

    def __enter__(self) -> "Upload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _refuse_folder(self) -> None:
        """Refuse early what `commit` would refuse after all the bytes have come."""
        try:
            place = locate(self._root, self._parts, follows_last=False)
        except FileNotFoundError:
            return  # a parent is missing: commit makes it
        except NotADirectoryError as error:
            raise Refused("not_a_directory", path=shown(wire_path(self._parts[:-1]))) from error
        with place:
            if is_folder(stat_or_none(place.name, place.folder)):
                raise Refused("path_is_directory", path=shown(wire_path(self._parts)))

    def _open_temporary(self) -> int:
        with suppress(OSError):  # this file system has none; what else is wrong, the other way says as well
            return os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._root)
        name = _fresh_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._root)
        self._temporary_name = name
        return descriptor

    def _give_away(self) -> None:
        if self._owner is not None:
            os.fchown(self._fd, self._owner, self._owner)

    def _replace(self, place: Place, if_match: Callable[[str | None], bool] | None) -> bool:
        """Rename over what is there; whether nothing was."""
        old = stat_or_none(place.name, place.folder)
        if is_folder(old):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if if_match is not None and not if_match(None if old is None else etag_of(old)):
            raise Refused("precondition_failed", path=shown(wire_path(self._parts)))
        # A script that is replaced stays executable; set-id bits are never passed on.
        os.fchmod(self._fd, old.st_mode & 0o777 if old is not None and stat.S_ISREG(old.st_mode) else 0o644)
        if self._temporary_name is not None:
            os.rename(self._temporary_name, place.name, src_dir_fd=self._root, dst_dir_fd=place.folder)
            self._temporary_name = None
        elif old is not None or not self._link(place.name, place.folder):
            name = _fresh_name()
            self._link(name, place.folder)
            try:
                os.rename(name, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            except BaseException:
                os.unlink(name, dir_fd=place.folder)
                raise
        self._freed = 0 if old is None else freed_bytes(old)
        return old is None

    def _link(self, name: bytes, folder: int) -> bool:
        """Give the nameless file a name; False when it is taken."""
        try:
            os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        return True


def _behind(chunks: Sequence[bytes | bytearray], written: int) -> Sequence[bytes | bytearray | memoryview]:
    """What is left of them when so many bytes have been written."""
    if written == 0:
        return chunks
    left = []
    for chunk in chunks:
        if written < len(chunk):
            left.append(memoryview(chunk)[written:])
        written = max(written - len(chunk), 0)
    return left


def _fresh_name() -> bytes:
    return TEMPORARY_PREFIX + secrets.token_hex(8).encode()
