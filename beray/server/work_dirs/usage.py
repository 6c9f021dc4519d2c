"""How much a folder takes on the disk, however it was made: deep, wide, full of links, changed while we look.

One descriptor at a time, for any depth: the way back up is `..`, taken only if it leads to where we came from.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from beray.server.work_dirs.confined import OPEN_FOLDER, open_closed

BLOCK_BYTES: Final = 512  # the unit of st_blocks, on every file system (stat(2))
NAME_BYTES: Final = 4096  # each name is a block at least, so that the number of files is limited with their size
ENTRIES_MOST: Final = 1_000_000  # some 3 s; what a folder holds beyond is not counted


def disk_bytes(status: os.stat_result) -> int:
    """What a file counts as: what it takes on the disk (holes take nothing), at least `NAME_BYTES`."""
    return max(status.st_blocks * BLOCK_BYTES, NAME_BYTES)


def freed_bytes(status: os.stat_result) -> int:
    """What no longer counts when a file with this status loses a name: only the name while it has another."""
    return disk_bytes(status) if status.st_nlink == 1 else NAME_BYTES


def measure(folder: Path) -> int:
    """Bytes that a folder takes on the disk with all in it, a file of several names once; 0 if it isn't there.

    A folder that a command has closed to its own user is opened up where that is the server's user too: else its files
    could be counted, listed and downloaded by root's server only. Blocks.
    """
    try:
        top = os.open(folder, OPEN_FOLDER)
    except FileNotFoundError:
        return 0
    return _Measuring(top).run()


@dataclass
class _Level:
    """A folder on the way down: which it is, and the folders in it that wait."""

    device: int
    inode: int
    waiting: list[bytes] = field(default_factory=list)


class _Measuring:
    def __init__(self, top: int) -> None:
        self._here = top
        self._levels: list[_Level] = []
        self._linked: set[tuple[int, int]] = set()
        self._left = ENTRIES_MOST
        self._bytes = 0

    def run(self) -> int:
        try:
            self._look()
            while self._levels:
                if self._levels[-1].waiting:
                    self._go_down(self._levels[-1].waiting.pop())
                elif not self._go_up():
                    break
        finally:
            os.close(self._here)
        return self._bytes

    def _look(self) -> None:
        """Count what is in this folder; remember the folders in it."""
        status = os.fstat(self._here)
        level = _Level(status.st_dev, status.st_ino)
        self._levels.append(level)
        self._bytes += disk_bytes(status)
        with os.scandir(self._here) as entries:
            for entry in entries:
                if self._left == 0:
                    level.waiting.clear()
                    return
                self._left -= 1
                with suppress(OSError):  # removed, or its folder closed, meanwhile
                    self._count(level, os.fsencode(entry.name), entry.stat(follow_symlinks=False))

    def _count(self, level: _Level, name: bytes, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            level.waiting.append(name)
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._linked:
            self._bytes += NAME_BYTES
        else:
            self._bytes += disk_bytes(status)
            if status.st_nlink > 1:
                self._linked.add((status.st_dev, status.st_ino))

    def _go_down(self, name: bytes) -> None:
        with suppress(OSError):  # removed, replaced or closed meanwhile
            self._move(open_closed(name, self._here))
            self._look()

    def _go_up(self) -> bool:
        """Back to the folder above; False at the top, or when this folder has been moved elsewhere."""
        self._levels.pop()
        if not self._levels:
            return False
        try:
            self._move(os.open(b"..", OPEN_FOLDER, dir_fd=self._here))
        except OSError:  # closed meanwhile
            return False
        status = os.fstat(self._here)
        return (status.st_dev, status.st_ino) == (self._levels[-1].device, self._levels[-1].inode)

    def _move(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor
