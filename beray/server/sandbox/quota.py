"""The file system's own limit on what a user's files hold, where the operator has turned user quotas on.

As root each task has a uid of its own, so a limit on the user is one on the task, and it is hard: writing more fails
with EDQUOT. Nothing has to be told: whether quotas are on is asked of the kernel (`quotactl_fd`, Linux 5.14).
"""

import ctypes
import errno
import logging
import os
from pathlib import Path

from beray.server.sandbox.guard.libc import syscall

logger = logging.getLogger(__name__)

# Numbers and layout from <linux/quota.h> and <asm-generic/unistd.h>; the same on x86_64 and aarch64.
_QUOTACTL_FD = 443
_USER = 0
_GET = 0x800007 << 8 | _USER
_SET = 0x800008 << 8 | _USER
_BLOCK_LIMITS_VALID = 1
_BLOCK_BYTES = 1024


class _Limits(ctypes.Structure):
    """`struct if_dqblk`."""

    _fields_ = (
        ("block_hard", ctypes.c_uint64),
        ("block_soft", ctypes.c_uint64),
        ("space", ctypes.c_uint64),
        ("inode_hard", ctypes.c_uint64),
        ("inode_soft", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("block_time", ctypes.c_uint64),
        ("inode_time", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    )


class UserQuotas:
    """Sets limits on the file system that holds `folder`; use `find`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._set: dict[int, int] = {}

    def limit(self, uid: int, disk_bytes: int) -> None:
        """Let the user's files hold at most so much; a limit that can't be set is logged, the watch goes on anyhow."""
        if self._set.get(uid) == disk_bytes:
            return
        blocks = disk_bytes // _BLOCK_BYTES
        try:
            self._call(_SET, uid, _Limits(block_hard=blocks, block_soft=blocks, valid=_BLOCK_LIMITS_VALID))
        except OSError:
            logger.warning("no disk quota could be set", exc_info=True, extra={"uid": uid})
            return
        self._set[uid] = disk_bytes

    def is_on(self, uid: int) -> bool:
        """The kernel accounts for this user's files here."""
        try:
            self._call(_GET, uid, _Limits())
        except OSError as error:
            return error.errno == errno.ENOENT  # XFS has no record of a user without files and limits
        return True

    def _call(self, command: int, uid: int, limits: _Limits) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscall(_QUOTACTL_FD, fd, command, uid, ctypes.byref(limits))
        finally:
            os.close(fd)


def find_quotas(folder: Path, uid: int | None) -> UserQuotas | None:
    """The quotas of the file system that holds `folder`, if they are on and the server is root."""
    quotas = UserQuotas(folder)
    return quotas if uid is not None and quotas.is_on(uid) else None
