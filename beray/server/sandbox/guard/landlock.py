"""Landlock by system call: the kernel's rules about files, TCP ports and signals that a process puts on itself.

What a kernel can do is told by its ABI number (1 in Linux 5.13, 7 in 6.15). A ruleset names the rights it handles:
those are denied but where a rule grants them; what it doesn't name stays as it was. Source: the kernel's landlock(7).
"""

import ctypes
import os
import stat
from collections.abc import Iterable

from .libc import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1  # flag of create_ruleset: tell the ABI
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
NET_TCP = 0b11  # bind and connect
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1 << 0, 1 << 1

_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the kernel refuses others on a file (EINVAL)
READ_ONLY = EXECUTE | READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE

ABI_NETWORK = 4
ABI_SCOPE = 6


def abi() -> int:
    """The kernel's Landlock ABI; 0: there is none here (old kernel, not enabled at boot, refused by a filter)."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def all_file_rights(abi_number: int) -> int:
    """Every file right that ABI knows."""
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi_number, 16)
    return (1 << bits) - 1


def read_write(abi_number: int) -> int:
    """The rights on a folder a command may write: all but making device nodes."""
    return all_file_rights(abi_number) & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)


class Ruleset:
    """A set of rules under construction; `restrict_self` puts it on this thread for good."""

    def __init__(self, *, files: int, network: int = 0, scope: int = 0) -> None:
        attributes = (ctypes.c_uint64 * 3)(files, network, scope)
        # A kernel that knows fewer fields takes the longer structure as long as the rest is zero.
        self._fd = syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
        self._handled = files

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """Grant `rights` on and below each path; one that doesn't exist, or can't be reached, is left out."""
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                self._allow_fd(fd, rights)
            finally:
                os.close(fd)

    def _allow_fd(self, fd: int, rights: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        rule = (rights & self._handled).to_bytes(8, "little") + fd.to_bytes(4, "little")
        syscall(_ADD_RULE, self._fd, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)

    def restrict_self(self) -> None:
        """Enforce the rules on this thread and all it will start; needs no_new_privs."""
        syscall(_RESTRICT_SELF, self._fd, 0)
        os.close(self._fd)
