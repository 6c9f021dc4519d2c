"""How much disk do a command's folders hold, and is that too much? Where no quota of the file system says so, we look.

The tree is walked in slices, so that a stop is never kept waiting. When to walk again is told by the free space of the
file system, which costs nothing to ask: what it has lost since the last walk is at most what the folders have gained.
A file that is deleted but still open or mapped holds its space too: those are found by the descriptors and the maps of
the processes below us. Not found is one that is deleted while its only descriptor is on its way through a socket.

Overshoot: what a command can write within a pause (20 ms near the limit) and one walk (4 us for each file).
"""

import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from .closed import open_folder
from .processes import descendants, has_ended, thread_folders

SLICE_SECONDS = 0.025
PAUSE_SECONDS = 0.1
NEAR_PAUSE_SECONDS = 0.02
_NEAR_BYTES = 512 << 20  # a fast disk's tenth of a second, several times
_STEP_BYTES = 16 << 20  # less lost free space than this is no reason to walk
_USUAL_REST_SECONDS = 5.0  # free space can be lost here and won elsewhere at once: walk now and then anyhow
_LEAST_REST = 20  # such a walk that cost t of processor time is followed by 20 t without one
_MEASURE_SECONDS = 5.0  # a report that came later would be waited for in vain (`process.py`, LATE_SECONDS)
_BLOCK_BYTES = 512  # of st_blocks, by POSIX
_LEAST_ENTRY_BYTES = 4096  # each name counts as a block at least, so that the number of files is limited with it
_FLOOR_PART = 20  # of a small file system only so much is left alone
_DEEPEST = 500  # a descriptor a level


@dataclass(frozen=True)
class DiskLimits:
    """What a task may hold.

    Attributes:
        bytes: At most this in all its folders.
        before: What it held when the command started, if that is known. A command may free space of a task that holds
            too much: it is over the limit only when it makes things worse.
        free_bytes: Below this much free space no command may take more of it; of a small file system a twentieth.
    """

    bytes: int
    before: int | None
    free_bytes: int


class DiskWatch:
    """Watches the folders of one command.

    Args:
        folders: Absolute paths; they may hold anything, at any time.
        limits: What they may hold.
    """

    def __init__(self, folders: Sequence[str], limits: DiskLimits) -> None:
        self._folders = folders
        self._limits = limits
        self._before = limits.before
        self.used = limits.before
        self._walk: Generator[None, None, int] | None = None
        self._walk_started = 0.0
        self._next_walk = 0.0 if limits.before is None else time.monotonic() + _USUAL_REST_SECONDS
        self._free = self._free_now = _free_space(folders[0])
        self._floor = min(limits.free_bytes, _size(folders[0]) // _FLOOR_PART)

    @property
    def pause_seconds(self) -> float:
        """When to look again."""
        if self._walk is not None:
            return SLICE_SECONDS
        room = min(self._room(), self._free_now - self._floor)
        return NEAR_PAUSE_SECONDS if room < _NEAR_BYTES else PAUSE_SECONDS

    def is_over(self) -> bool:
        """The command has taken more than it may; looks a slice further if it is time to."""
        self._free_now = _free_space(self._folders[0])
        if self._walk is None and not self._is_due():
            return False
        return self._walk_on(SLICE_SECONDS) and self._is_too_much()

    def measure(self) -> int | None:
        """What the folders hold when no process is left, bytes; None if it takes too long to find out.

        Walks if much has changed on the file system since the last walk.
        """
        lost = self._free - _free_space(self._folders[0])
        if self._walk is None and self.used is not None and abs(lost) < _STEP_BYTES:
            return self.used + max(0, lost)
        count = _Count(self._limits.bytes)
        end = time.monotonic() + _MEASURE_SECONDS
        for _ in _in_folders(self._folders, count):
            if time.monotonic() > end:
                return None
        return count.total

    def _is_due(self) -> bool:
        lost = self._free - self._free_now
        return lost >= _STEP_BYTES or time.monotonic() >= self._next_walk

    def _room(self) -> int:
        """What may still be taken, as far as we know."""
        used = 0 if self.used is None else self.used
        return self._limits.bytes - used - max(0, self._free - self._free_now)

    def _is_too_much(self) -> bool:
        assert self.used is not None
        if self._before is None:
            self._before = self.used
        grown = self.used - self._before
        is_disk_full = self._free_now < self._floor
        return grown > (_STEP_BYTES if is_disk_full else 0) and (is_disk_full or self.used > self._limits.bytes)

    def _walk_on(self, seconds: float) -> bool:
        """True when the walk is at its end, and `used` is new."""
        if self._walk is None:
            self._walk_started = time.process_time()
            self._free = self._free_now
            self._walk = _held(self._folders, _Count(self._limits.bytes))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                next(self._walk)
            except StopIteration as stopped:
                self.used = int(stopped.value)
                cost = time.process_time() - self._walk_started
                self._next_walk = time.monotonic() + max(_USUAL_REST_SECONDS, cost * _LEAST_REST)
                self._walk = None
                return True
        return False


def _free_space(folder: str) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:  # the folder has been removed: nothing can be lost by it
        return 0
    return found.f_bavail * found.f_frsize


def _size(folder: str) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_blocks * found.f_frsize


def _held(folders: Sequence[str], count: "_Count") -> Generator[None, None, int]:
    """Bytes on disk of all that is below the folders, or deleted and still open. Yields after every few files."""
    yield from _in_folders(folders, count)
    yield from _open_and_deleted(count)
    return count.total


def _in_folders(folders: Sequence[str], count: "_Count") -> Generator[None, None, None]:
    for folder in folders:
        try:
            fd = open_folder(folder)
        except OSError:
            continue
        count.device = os.fstat(fd).st_dev
        yield from _walk(fd, count)


class _Count:
    """A sum that takes every file once, however many names it has, and every name."""

    def __init__(self, most: int) -> None:
        self.total = 0
        self.most = most
        self.device = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, found: os.stat_result) -> None:
        is_known = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode) and not self.is_new(found.st_ino)
        self.total += max(0 if is_known else found.st_blocks * _BLOCK_BYTES, _LEAST_ENTRY_BYTES)

    def add_hidden(self) -> None:
        """What we are kept from seeing counts as all there may be, until it can be seen."""
        self.total += self.most

    def is_new(self, inode: int, offset: int = 0) -> bool:
        if (inode, offset) in self._seen:
            return False
        self._seen.add((inode, offset))
        return True


def _walk(top: int, count: _Count) -> Generator[None, None, None]:
    """Down by descriptors: a folder that is moved or replaced under our feet leads nowhere else. Closes `top`."""
    opened = [(top, _entries(top))]
    try:
        while opened:
            fd, entries = opened[-1]
            entry = next(entries, None)
            if entry is None:
                opened.pop()
                os.close(fd)
                continue
            below = _look_at(fd, entry, count, is_deepest=len(opened) >= _DEEPEST)
            if below is not None:
                opened.append((below, _entries(below)))
            yield
    finally:
        for fd, _ in opened:
            os.close(fd)


def _entries(fd: int) -> Iterator[str]:
    try:
        return iter(os.listdir(fd))
    except OSError:
        return iter(())


def _look_at(folder: int, name: str, count: _Count, *, is_deepest: bool) -> int | None:
    """Count an entry; the descriptor of a folder."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if found.st_dev != count.device:
            return None
        count.add(found)
        if not stat.S_ISDIR(found.st_mode):
            return None
        if is_deepest:
            raise PermissionError
        return open_folder(name, dir_fd=folder)
    except PermissionError:
        count.add_hidden()
    except OSError:  # gone meanwhile, or another thing by now
        pass
    return None


def _open_and_deleted(count: _Count) -> Generator[None, None, None]:
    for pid in descendants(os.getpid()):
        for folder in thread_folders(pid):
            for name in _descriptors(folder, count):
                _add_deleted(f"{folder}/fd/{name}", count)
                yield
        for folder in thread_folders(pid):
            if _add_mapped(folder, pid, count):
                break
        yield


def _descriptors(thread: str, count: _Count) -> list[str]:
    try:
        return os.listdir(f"{thread}/fd")
    except PermissionError:
        if not has_ended(thread):
            count.add_hidden()
    except OSError:  # gone meanwhile
        pass
    return []


def _add_deleted(path: str, count: _Count) -> None:
    try:
        found = os.stat(path)
    except OSError:
        return
    is_ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == count.device
    if is_ours and count.is_new(found.st_ino):
        count.total += found.st_blocks * _BLOCK_BYTES


def _add_mapped(thread: str, pid: int, count: _Count) -> bool:
    """Count deleted files that a process only has mapped; False if this thread, having ended, shows no maps."""
    try:
        with open(f"{thread}/maps", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    for line in lines:
        if line.endswith(b" (deleted)"):
            span, _, offset, device, inode = line.split(maxsplit=5)[:5]
            if os.makedev(*(int(part, 16) for part in device.split(b":"))) == count.device:
                _add_mapping(f"/proc/{pid}/map_files/{span.decode()}", int(inode), int(offset, 16), count)
    return bool(lines)


def _add_mapping(path: str, inode: int, offset: int, count: _Count) -> None:
    """The whole file where we may see it, which only root may; else the part that is mapped."""
    try:
        found = os.stat(path)
    except OSError:
        first, last = (int(part, 16) for part in path.rpartition("/")[2].split("-"))
        if count.is_new(inode, offset):
            count.total += last - first
        return
    if found.st_nlink == 0 and count.is_new(inode):
        count.total += found.st_blocks * _BLOCK_BYTES
