"""The system calls Python has no function for. A NUL never reaches C: `ctypes` would cut the string there."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SECCOMP_MODE_FILTER = 2
_LAST_CAPABILITY = 63  # the kernel answers EINVAL above its own last one
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel; integers are passed as longs, buffers by address.

    Raises:
        OSError: The kernel refused.
    """
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise_errno()
    return result


def prctl(option: int, *arguments: int) -> None:
    """Set a property of this thread or process; missing arguments are 0."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    if _libc.prctl(option, *[ctypes.c_ulong(item) for item in padded]) < 0:
        raise_errno()


def raise_errno() -> None:
    """Raise the OSError of the call that has just failed."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def drop_bounding_set() -> None:
    """Take every capability out of the bounding set, as far as we may.

    What this process can do itself stays; what it starts later inherits the empty set. 50 us a capability, so once.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # EINVAL: past the kernel's last; EPERM: not ours to drop, and useless with no_new_privs
            return


def drop_capabilities() -> None:
    """Empty the effective, permitted, inheritable and ambient sets of this thread."""
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:  # kernel < 4.3 has no ambient set
        pass
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty_sets = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, empty_sets) < 0:
        raise_errno()


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_seccomp(program: bytes) -> None:
    """Put the BPF program on this thread; needs no_new_privs."""
    fprog = _SockFprog(len(program) // 8, program)
    if _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(fprog), 0, 0) < 0:
        raise_errno()
