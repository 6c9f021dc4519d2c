"""Folders that their owner has closed to themselves, as `chmod -R 644` does: opened up, to see what they hold.

Without root's capabilities we are kept out like their owner, who may open them again, as we do. They stay open: another
command's supervisor may be looking into the same folder.
"""

import os
import stat

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEEDED = stat.S_IRUSR | stat.S_IXUSR  # to list it, and to look at what is listed


def open_folder(name: str, *, dir_fd: int | None = None) -> int:
    """The descriptor of a folder, never through a link.

    Raises:
        PermissionError: It is closed, and not ours to open.
        OSError: It is gone, or another thing.
    """
    try:
        fd = os.open(name, _OPEN, dir_fd=dir_fd)
    except PermissionError:
        _open_up(name, dir_fd)
        return os.open(name, _OPEN, dir_fd=dir_fd)
    found = os.fstat(fd)
    if found.st_mode & _NEEDED != _NEEDED and found.st_uid == os.geteuid() != 0:
        os.fchmod(fd, stat.S_IMODE(found.st_mode) | _NEEDED)
    return fd


def _open_up(name: str, dir_fd: int | None) -> None:
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(os.fstat(place).st_mode) | _NEEDED)
    finally:
        os.close(place)
