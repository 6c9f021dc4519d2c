"""Folders that their owner has closed to themselves, as `chmod -R 644` does: opened up while we look into them.

Without root's capabilities we are kept out like their owner, who may open them again, as we do.
"""

import contextlib
import os
import stat
from dataclasses import dataclass

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEEDED = stat.S_IRUSR | stat.S_IXUSR  # to list it, and to look at what is listed


@dataclass(frozen=True)
class Folder:
    """An open folder.

    Attributes:
        fd: Its descriptor.
        closed_mode: The permissions it had, and gets back, if it was closed.
    """

    fd: int
    closed_mode: int | None = None

    def close(self) -> None:
        """Close the descriptor, and the folder if it was closed and nobody has changed it since."""
        with contextlib.suppress(OSError):  # it is another's by now
            if self.closed_mode is not None and _mode(self.fd) == self.closed_mode | _NEEDED:
                os.fchmod(self.fd, self.closed_mode)
        os.close(self.fd)


def open_folder(name: bytes | str, *, dir_fd: int | None = None) -> Folder:
    """Open a folder, never through a link; the caller closes it.

    Raises:
        PermissionError: It is closed, and not ours to open.
        OSError: It is gone, or another thing.
    """
    try:
        fd = os.open(name, OPEN_FOLDER, dir_fd=dir_fd)
    except PermissionError:
        return _open_closed(name, dir_fd)
    try:
        return Folder(fd, _open_up(fd))
    except BaseException:
        os.close(fd)
        raise


def _open_closed(name: bytes | str, dir_fd: int | None) -> Folder:
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        itself = f"/proc/self/fd/{place}"
        mode = _mode(place)
        os.chmod(itself, mode | _NEEDED)
        return Folder(os.open(itself, OPEN_FOLDER & ~os.O_NOFOLLOW), mode)
    finally:
        os.close(place)


def _open_up(fd: int) -> int | None:
    """Let its owner, us, look up what is in it; the mode it had if that had to be changed."""
    mode = _mode(fd)
    if mode & _NEEDED == _NEEDED or os.geteuid() == 0:
        return None
    if os.fstat(fd).st_uid != os.geteuid():  # whether we may is written elsewhere in its mode
        return None
    os.fchmod(fd, mode | _NEEDED)
    return mode


def _mode(fd: int) -> int:
    return stat.S_IMODE(os.fstat(fd).st_mode)
