"""The system-call filter of every confined command, written as BPF by hand, for x86_64 and aarch64.

It is a deny list: what could reach outside the confinement or widen the kernel's attack surface gets EPERM, the rest
of Linux stays usable for compilers, interpreters and shells. Foreign architectures (i386 and ARM by compatibility
mode) are killed, x32 gets ENOSYS. `clone3` gets ENOSYS, since its flags lie in memory where a filter can't see them:
libraries then fall back to `clone`, whose flags we check. `fallocate` gets EOPNOTSUPP where it takes space, since it
takes a whole disk between two looks of `disk.py`: libraries then fall back to writing.
Only the lower half of an argument is compared where the kernel itself takes an `int`.
"""

import errno
import functools
import itertools
import struct
from dataclasses import dataclass
from typing import Final

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NOT_SUPPORTED = _ERRNO | errno.EOPNOTSUPP
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_X32_BIT = 0x40000000

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; NEWTIME is no flag of clone's
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # push characters into a terminal's input
_PR_SET_DUMPABLE = 4  # not dumpable, a process shows its supervisor neither memory nor descriptors
_FREES_SPACE = 0x02 | 0x08  # FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE
_RESERVING = (0x40305828, 0x4030582A, 0x40305839)  # FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE: fallocate again
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_PRIO_USER = 2
_IOPRIO_WHO_USER = 3

_AUDIT_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where that architecture has no such call
SYSCALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # namespaces, mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "fanotify_init": (300, 262),
    # parts of the kernel with a history of holes
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "vhangup": (153, 58),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "_sysctl": (156, None),
    "sysfs": (139, None),
    "ustat": (136, None),
    # the machine
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, None),
    "ioperm": (173, None),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    # shared memory and queues that outlive a command and are seen by others
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # looked at by their arguments
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "truncate": (76, 45),
    "fallocate": (285, 47),
    "prctl": (157, 167),
}

_BY_ARGUMENT: Final = frozenset(
    ["clone", "clone3", "ioctl", "socket", "prlimit64", "setpriority", "ioprio_set", "truncate", "fallocate", "prctl"]
    + [name for name in SYSCALLS if name.startswith("sched_")]
)


@dataclass(frozen=True)
class FilterRules:
    """What differs between backends.

    Attributes:
        has_sockets: The command has a network namespace of its own, so sockets are harmless; else none can be made.
        sees_others: Processes that are not the command's have the same uid and number space: calls that change another
            process by number are refused.
        denies_truncate: Landlock can't guard truncation by path here (ABI below 3).
    """

    has_sockets: bool
    sees_others: bool
    denies_truncate: bool = False


@functools.cache
def build_filter(machine: str, rules: FilterRules) -> bytes:
    """The BPF program for `machine` (as `uname -m`): 8 bytes an instruction.

    Raises:
        KeyError: No table for this architecture.
    """
    column = {"x86_64": 0, "aarch64": 1}[machine]
    number = {name: pair[column] for name, pair in SYSCALLS.items()}
    code = _Program()
    code.load(_ARCHITECTURE)
    code.unless_equal(_AUDIT_ARCHITECTURE[machine], _KILL)
    code.load(_NUMBER)
    if machine == "x86_64":
        code.when_at_least(_X32_BIT, _ERRNO | errno.ENOSYS)
    for name, value in number.items():
        if value is not None and name not in _BY_ARGUMENT:
            code.when_equal(value, _ERRNO | errno.EPERM)
    _add_argument_checks(code, {name: value for name, value in number.items() if value is not None}, rules)
    code.answer(_ALLOW)
    return code.assemble()


def build_all_filters(machine: str) -> None:
    """Build what a command may need before it is forked, so that none has to build it again."""
    if machine not in _AUDIT_ARCHITECTURE:  # only the backend `none` works there
        return
    for choice in itertools.product((False, True), repeat=3):
        build_filter(machine, FilterRules(*choice))


def _add_argument_checks(code: "_Program", number: dict[str, int], rules: FilterRules) -> None:
    denied = _ERRNO | errno.EPERM
    code.when_equal(number["clone3"], _ERRNO | errno.ENOSYS)
    with_flags = code.call(number["clone"], argument=0)
    with_flags.when_any_bit(_NEW_NAMESPACES, denied)
    request = code.call(number["ioctl"], argument=1)
    for injecting in (_TIOCSTI, _TIOCLINUX):
        request.when_equal(injecting, denied)
    for reserving in _RESERVING:
        request.when_equal(reserving, _NOT_SUPPORTED)
    code.call(number["prctl"], argument=0).when_equal(_PR_SET_DUMPABLE, denied)
    change = code.call(number["fallocate"], argument=1)
    change.when_any_bit(_FREES_SPACE, _ALLOW)
    change.answer(_NOT_SUPPORTED)
    family = code.call(number["socket"], argument=0)
    if rules.has_sockets:
        for allowed in (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK):
            family.when_equal(allowed, _ALLOW)
        family.answer(_ERRNO | errno.EAFNOSUPPORT)
    else:
        family.answer(_ERRNO | errno.EACCES)
    if rules.denies_truncate:
        code.when_equal(number["truncate"], denied)
    if rules.sees_others:
        _deny_changing_others(code, number)


def _deny_changing_others(code: "_Program", number: dict[str, int]) -> None:
    denied = _ERRNO | errno.EPERM
    by_pid = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
    for name in by_pid:
        code.call(number[name], argument=0).unless_equal(0, denied)
    for name, user in (("setpriority", _PRIO_USER), ("ioprio_set", _IOPRIO_WHO_USER)):
        code.call(number[name], argument=0).when_equal(user, denied)
        code.call(number[name], argument=1).unless_equal(0, denied)


class _Program:
    """Instructions in order. A block for one call leaves the call's number loaded again at its end."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, int, int] | _Call] = []

    def load(self, offset: int) -> None:
        self._lines.append((_LOAD, 0, 0, offset))

    def answer(self, verdict: int) -> None:
        self._lines.append((_RETURN, 0, 0, verdict))

    def when_equal(self, value: int, verdict: int) -> None:
        self._lines.append((_JUMP_EQUAL, 0, 1, value))
        self.answer(verdict)

    def unless_equal(self, value: int, verdict: int) -> None:
        self._lines.append((_JUMP_EQUAL, 1, 0, value))
        self.answer(verdict)

    def when_at_least(self, value: int, verdict: int) -> None:
        self._lines.append((_JUMP_GREATER_EQUAL, 0, 1, value))
        self.answer(verdict)

    def when_any_bit(self, bits: int, verdict: int) -> None:
        self._lines.append((_JUMP_SET, 0, 1, bits))
        self.answer(verdict)

    def call(self, number: int, *, argument: int) -> "_Call":
        """Begin the block of one call, about the lower half of one argument; it is skipped for every other call."""
        block = _Call(number, argument)
        self._lines.append(block)
        return block

    def assemble(self) -> bytes:
        return b"".join(struct.pack("<HBBI", *line) for line in self.flat())

    def flat(self) -> list[tuple[int, int, int, int]]:
        flat: list[tuple[int, int, int, int]] = []
        for line in self._lines:
            flat.extend(line.whole() if isinstance(line, _Call) else [line])
        return flat


class _Call(_Program):
    """The block of one call."""

    def __init__(self, number: int, argument: int) -> None:
        super().__init__()
        self._number = number
        self.load(16 + 8 * argument)  # little-endian: the lower half comes first

    def whole(self) -> list[tuple[int, int, int, int]]:
        self_lines = [*self.flat(), (_LOAD, 0, 0, _NUMBER)]
        return [(_JUMP_EQUAL, 0, len(self_lines), self._number), *self_lines]
