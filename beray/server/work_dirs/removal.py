"""Remove a folder and all that is in it, however it was made: deep, wide, unreadable, full of links, still written to.

Nothing is followed and nothing recurses. A folder inside is emptied by moving the folders in it up to the top one, so
that two descriptors do for any depth. As root each folder is first taken from its owner, who then can't add to it.
"""

import errno
import os
import secrets
from contextlib import suppress
from typing import Final

from beray.server.work_dirs.confined import OPEN_FOLDER, open_up

# A writer of the same uid can put files in as fast as we remove them; it must not keep us for ever.
MOST_PASSES: Final = 100
MOST_MOVES: Final = 1_000_000


def remove_entry(name: bytes, folder: int) -> None:
    """Remove what is at `name` in the open folder: a file, a link, or a folder with all that is in it.

    Raises:
        FileNotFoundError: Nothing is there.
        OSError: Something can't be removed.
    """
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        _Removal(name, folder).run()


class _Removal:
    def __init__(self, name: bytes, folder: int) -> None:
        self._name = name
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._moved = 0

    def run(self) -> None:
        top = open_own_folder(self._name, self._folder)
        try:
            for _ in range(MOST_PASSES):
                self._empty(top)
                if self._is_removed(self._name, self._folder):
                    return
        finally:
            os.close(top)
        raise OSError(errno.ENOTEMPTY, "files are added faster than they can be removed", os.fsdecode(self._name))

    def _empty(self, top: int) -> None:
        waiting = _names(top)
        while waiting and self._moved < MOST_MOVES:
            name = waiting.pop()
            if not self._is_removed(name, top):
                waiting.extend(self._dissolve(name, top))

    def _dissolve(self, name: bytes, top: int) -> list[bytes]:
        """Remove the folder `name` in `top`; the full folders in it move up to `top`: their names there."""
        moved: list[bytes] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            inner = open_own_folder(name, top)
            try:
                for child in _names(inner):
                    if not self._is_removed(child, inner):
                        moved += self._move_up(child, inner, top)
            finally:
                os.close(inner)
            self._is_removed(name, top)
        return moved

    def _move_up(self, name: bytes, folder: int, top: int) -> list[bytes]:
        self._moved += 1
        fresh = f".{self._token}-{self._moved}".encode()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.close(open_own_folder(name, folder))  # moving a folder needs the right to write in it
            os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
            return [fresh]
        return []

    def _is_removed(self, name: bytes, folder: int) -> bool:
        """Remove a file, link or empty folder; False when it is a folder with something in it."""
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=folder)
            except IsADirectoryError:
                try:
                    os.rmdir(name, dir_fd=folder)
                except NotADirectoryError:
                    return False  # changed meanwhile: the next pass sees it
                except OSError as error:
                    if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                        return False
                    raise
        return True


def open_own_folder(name: bytes, folder: int) -> int:
    """Open a folder and make it ours to change, whatever its mode."""
    try:
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=folder)
    except PermissionError:
        open_up(name, folder, 0o700)
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=folder)
    with suppress(PermissionError):  # then removing says what is wrong
        if os.geteuid() == 0:
            os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o700)
    return descriptor


def _names(folder: int) -> list[bytes]:
    with os.scandir(folder) as entries:
        return [os.fsencode(entry.name) for entry in entries]
