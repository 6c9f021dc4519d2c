"""Find and open what a path names, and never anything outside a folder, whatever changes meanwhile.

A check of names (`realpath`, then `open`) can't be right here: between the two, a command of the task swaps a folder
for a link (measured: 593 leaks in 4,978 reads). So each name is opened relative to the descriptor of the folder before
it, never following a link (`O_NOFOLLOW`). A link is read and its names are walked by the same rule; `..` in it goes
back to the descriptor we came through, an absolute one or one that climbs out is refused. Nothing depends on /proc or
on newer system calls.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from beray.server.errors import Refused, shown
from beray.server.work_dirs.paths import MAX_DEPTH, Parts, invalid_path, wire_path

MAX_LINKS: Final = 40  # as many as Linux follows in one path

OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO would wait for its writer, a file under a lease for its holder.
LOOKED_INTO: Final = stat.S_IRUSR | stat.S_IXUSR  # what its owner needs to list a folder and to look at what is in it
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_up(name: bytes, folder: int | None, rights: int) -> None:
    """Give a folder's owner more rights, by descriptor: by name a link put there meanwhile would be followed.

    Raises:
        PermissionError: It is another's.
        OSError: It is gone, or no folder.
    """
    place = os.open(name, OPEN_PLACE, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        os.chmod(f"/proc/self/fd/{place}", mode | rights)  # noqa: PTH101 (not a path: a descriptor)
    finally:
        os.close(place)


def open_closed(name: bytes, folder: int | None) -> int:
    """Open a folder to look into it; one that its owner has closed to themselves, if that is us, is opened up.

    Raises:
        OSError: It can't be.
    """
    try:
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=folder)
    except PermissionError:
        open_up(name, folder, LOOKED_INTO)
        return os.open(name, OPEN_FOLDER, dir_fd=folder)
    mode = os.fstat(descriptor).st_mode
    if mode & LOOKED_INTO != LOOKED_INTO and os.geteuid() != 0:
        with suppress(PermissionError):  # another's, which shows at once
            os.fchmod(descriptor, stat.S_IMODE(mode) | LOOKED_INTO)
    return descriptor


class LeavesWorkDir(Exception):
    """The path goes through a link that leads out, or through too many links."""


class TooDeep(Exception):
    """The path, with its links followed, is deeper than we go."""


@dataclass
class Place:
    """A name in an open folder: where a path leads. Close it, or use it in `with`."""

    folder: int
    name: bytes
    """`.` when the path leads to the folder itself."""
    _descriptors: list[int] = field(repr=False)

    def close(self) -> None:
        """Close the folder; twice is harmless."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def locate(root: int, parts: Parts, *, follows_last: bool, maker: "FolderMaker | None" = None) -> Place:
    """Walk to where `parts` lead below the open folder `root`.

    Args:
        root: Descriptor of the folder to stay in; stays open.
        parts: Names to walk.
        follows_last: Follow a link at the last name too (for reading); otherwise the link itself is meant.
        maker: Makes the parents that are missing; None: they must exist.

    Raises:
        LeavesWorkDir: A link leads out.
        TooDeep: More than `MAX_DEPTH` levels.
        OSError: A parent is missing, or is not a folder. Whether the last name exists is not checked.
    """
    walk = _Walk(root, parts, maker)
    try:
        name = walk.run(follows_last=follows_last)
    except BaseException:
        walk.close()
        raise
    return walk.place(name)


class FolderMaker:
    """Makes missing parents, for the owner, durable."""

    def __init__(self, owner: int | None) -> None:
        self._owner = owner

    def make(self, name: bytes, parent: int) -> None:
        """Make the folder `name` in the open folder `parent`, unless it is there."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            return
        folder = os.open(name, OPEN_FOLDER, dir_fd=parent)
        try:
            # The task may have put another folder here meanwhile; only one of ours is given away.
            if self._owner is not None and os.fstat(folder).st_uid == os.geteuid():
                os.fchown(folder, self._owner, self._owner)
        finally:
            os.close(folder)
        sync_folder(parent)


class _Walk:
    """One walk: the names still to go, and a descriptor for each folder gone through (the first is the root's)."""

    def __init__(self, root: int, parts: Parts, maker: FolderMaker | None) -> None:
        self._pending = list(reversed(parts))
        self._folders = [os.dup(root)]
        self._links = 0
        self._maker = maker

    def run(self, *, follows_last: bool) -> bytes:
        """Go all the way; the last name, which may not exist."""
        while self._pending:
            name = self._pending.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":  # only a link has this
                self._climb()
            elif not self._pending:
                if not follows_last or not self._push_link(name):
                    return name
            else:
                self._enter(name)
        return b"."

    def place(self, name: bytes) -> Place:
        folder = self._folders.pop()
        self.close()
        return Place(folder, name, [folder])

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop())

    def _climb(self) -> None:
        if len(self._folders) == 1:
            raise LeavesWorkDir
        os.close(self._folders.pop())

    def _enter(self, name: bytes) -> None:
        if len(self._folders) > MAX_DEPTH:
            raise TooDeep
        try:
            self._folders.append(os.open(name, OPEN_PLACE, dir_fd=self._folders[-1]))
        except NotADirectoryError:
            if not self._push_link(name):
                raise
        except FileNotFoundError:
            if self._maker is None:
                raise
            self._maker.make(name, self._folders[-1])
            self._count_link()  # bounds a task that removes it as often as we make it
            self._pending.append(name)

    def _push_link(self, name: bytes) -> bool:
        """If `name` is a link, put its names on the way to go."""
        try:
            target = os.readlink(name, dir_fd=self._folders[-1])
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return False
            raise
        self._count_link()
        if target.startswith(b"/"):
            raise LeavesWorkDir
        self._pending.extend(reversed(target.split(b"/")))
        return True

    def _count_link(self) -> None:
        self._links += 1
        if self._links > MAX_LINKS + MAX_DEPTH * (self._maker is not None):
            raise LeavesWorkDir


def open_beneath(folder: int, parts: Parts) -> int:
    """Open the folder at `parts` below the open `folder` for listing; a link anywhere is an error (OSError)."""
    current = os.dup(folder)
    try:
        for part in parts[:-1]:
            below = os.open(part, OPEN_PLACE, dir_fd=current)
            os.close(current)
            current = below
        return os.open(parts[-1] if parts else b".", OPEN_FOLDER, dir_fd=current)
    finally:
        os.close(current)


def sync_folder(folder: int) -> None:
    """Make the names in a folder durable; `folder` may be an O_PATH descriptor."""
    descriptor = os.open(b".", OPEN_FOLDER, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stat_or_none(name: bytes, folder: int) -> os.stat_result | None:
    """What is at `name`, links not followed; None when nothing is."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def is_folder(status: os.stat_result | None) -> bool:
    """Whether it is a folder (None, nothing there, is not)."""
    return status is not None and stat.S_ISDIR(status.st_mode)


DISK_FAULTS: Final = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "disk_full",
    errno.EROFS: "disk_unavailable",
    errno.EIO: "disk_unavailable",
}

_REFUSALS: Final = {
    **DISK_FAULTS,
    errno.ENOENT: "file_not_found",
    errno.ENOTDIR: "file_not_found",
    errno.ESTALE: "file_not_found",
    errno.EACCES: "file_not_permitted",
    errno.EPERM: "file_not_permitted",
    errno.ENXIO: "not_a_file",  # a socket, or a device without a driver
    errno.ENODEV: "not_a_file",
    errno.EAGAIN: "file_busy",  # a lease is held on it
    errno.ETXTBSY: "file_busy",
    errno.EISDIR: "path_is_directory",
}


@contextmanager
def refusals(parts: Parts) -> Iterator[None]:
    """Turn what the system says about `parts` into a `Refused`; an error that is the machine's own passes."""
    try:
        yield
    except LeavesWorkDir as error:
        raise invalid_path(wire_path(parts), "path_leaves") from error
    except TooDeep as error:
        raise invalid_path(wire_path(parts), "path_too_deep") from error
    except OSError as error:
        path = wire_path(parts)
        if error.errno == errno.ELOOP:
            raise invalid_path(path, "path_leaves") from error
        if error.errno == errno.ENAMETOOLONG:
            raise invalid_path(path, "path_too_long") from error
        code = _REFUSALS.get(error.errno or 0)
        if code is None:
            raise
        raise Refused(code, path=shown(path)) from error
