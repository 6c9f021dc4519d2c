"""The filter, run by a small BPF machine, for both architectures; and its tables against the kernel's headers."""

import errno
import re
import struct
from pathlib import Path

import pytest

from beray.server.sandbox.guard.seccomp import SYSCALLS, FilterRules, build_filter

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
OWN_NAMESPACE = FilterRules(has_sockets=True, sees_others=False)
SHARED = FilterRules(has_sockets=False, sees_others=True)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}

machines = pytest.mark.parametrize("machine", ARCHITECTURES)


def verdict(program: bytes, machine: str, number: int, *arguments: int, architecture: int | None = None) -> str:
    """What the kernel would do with a call: run the BPF program over its `struct seccomp_data`."""
    padded = [argument & (2**64 - 1) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *padded)
    lines = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = lines[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            action = operand & 0xFFFF0000
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(action) or errno.errorcode[operand & 0xFFFF]
        else:
            is_met = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            at += if_true if is_met else if_false


def number(name: str, machine: str) -> int:
    value = SYSCALLS[name][list(ARCHITECTURES).index(machine)]
    assert value is not None
    return value


@machines
@pytest.mark.parametrize("name", ["mount", "unshare", "setns", "ptrace", "bpf", "io_uring_setup", "keyctl", "shmget"])
@pytest.mark.parametrize("rules", [OWN_NAMESPACE, SHARED], ids=["own", "shared"])
def test_a_dangerous_call_is_refused(machine: str, name: str, rules: FilterRules) -> None:
    assert verdict(build_filter(machine, rules), machine, number(name, machine)) == "EPERM"


@machines
def test_ordinary_calls_are_allowed(machine: str) -> None:
    """Every number that the table doesn't name; the tables hold what is denied or looked at."""
    program = build_filter(machine, SHARED)
    named = {pair[list(ARCHITECTURES).index(machine)] for pair in SYSCALLS.values()}

    verdicts = {verdict(program, machine, value) for value in range(460) if value not in named}

    assert verdicts == {ALLOW}


@machines
def test_another_architecture_is_killed(machine: str) -> None:
    i386 = 0x40000003
    assert verdict(build_filter(machine, SHARED), machine, 1, architecture=i386) == KILL


def test_x32_calls_do_not_exist() -> None:
    program = build_filter("x86_64", SHARED)
    assert {verdict(program, "x86_64", 0x40000000 | value) for value in (0, 39, 520, 0x3FFFFFFF)} == {"ENOSYS"}


@machines
def test_clone_makes_processes_and_threads_but_no_namespaces(machine: str) -> None:
    program, clone = build_filter(machine, SHARED), number("clone", machine)
    thread, user_namespace, network_namespace = 0x3D0F00, 0x10000000, 0x40000000

    assert verdict(program, machine, clone, 17) == ALLOW
    assert verdict(program, machine, clone, thread) == ALLOW
    assert verdict(program, machine, clone, user_namespace | 17) == "EPERM"
    assert verdict(program, machine, clone, network_namespace | 17) == "EPERM"
    assert verdict(program, machine, number("clone3", machine)) == "ENOSYS"


@machines
def test_terminal_input_is_not_pushed_whatever_the_upper_half_says(machine: str) -> None:
    program, ioctl = build_filter(machine, OWN_NAMESPACE), number("ioctl", machine)

    assert verdict(program, machine, ioctl, 0, 0x5412) == "EPERM"
    assert verdict(program, machine, ioctl, 0, 0xFFFFFFFF00005412) == "EPERM"
    assert verdict(program, machine, ioctl, 0, 0x541C) == "EPERM"
    assert verdict(program, machine, ioctl, 0, 0x5401) == ALLOW


@machines
def test_a_process_can_not_hide_from_its_supervisor(machine: str) -> None:
    program, prctl = build_filter(machine, SHARED), number("prctl", machine)

    assert verdict(program, machine, prctl, 4, 0) == "EPERM"
    assert verdict(program, machine, prctl, 15, 0) == ALLOW


@machines
def test_space_is_not_reserved_but_freed(machine: str) -> None:
    program = build_filter(machine, OWN_NAMESPACE)
    fallocate, ioctl = number("fallocate", machine), number("ioctl", machine)
    not_supported = errno.errorcode[errno.EOPNOTSUPP]

    assert {verdict(program, machine, fallocate, 3, mode) for mode in (0, 1, 0x10, 0x20, 0x40)} == {not_supported}
    assert {verdict(program, machine, fallocate, 3, mode) for mode in (0x03, 0x08)} == {ALLOW}
    assert verdict(program, machine, ioctl, 3, 0x40305828) == not_supported


@machines
def test_sockets_are_allowed_only_with_a_network_namespace(machine: str) -> None:
    socket = number("socket", machine)
    own, shared = build_filter(machine, OWN_NAMESPACE), build_filter(machine, SHARED)

    assert [verdict(own, machine, socket, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert [verdict(own, machine, socket, family) for family in (17, 38, 40)] == ["EAFNOSUPPORT"] * 3
    assert {verdict(shared, machine, socket, family) for family in range(46)} == {"EACCES"}


@machines
def test_others_are_not_changed_by_number_where_they_are_seen(machine: str) -> None:
    shared, own = build_filter(machine, SHARED), build_filter(machine, OWN_NAMESPACE)
    by_pid = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")

    for name in by_pid:
        assert verdict(shared, machine, number(name, machine), 0) == ALLOW
        assert verdict(shared, machine, number(name, machine), 4711) == "EPERM"
        assert verdict(own, machine, number(name, machine), 4711) == ALLOW
    for name, whole_user in (("setpriority", 2), ("ioprio_set", 3)):
        assert verdict(shared, machine, number(name, machine), 0, 0) == ALLOW
        assert verdict(shared, machine, number(name, machine), 0, 4711) == "EPERM"
        assert verdict(shared, machine, number(name, machine), whole_user, 0) == "EPERM"


@machines
def test_truncation_by_path_is_refused_where_landlock_can_not_guard_it(machine: str) -> None:
    old = build_filter(machine, FilterRules(has_sockets=False, sees_others=False, denies_truncate=True))

    assert verdict(old, machine, number("truncate", machine)) == "EPERM"
    assert verdict(build_filter(machine, SHARED), machine, number("truncate", machine)) == ALLOW


@machines
def test_numbers_are_the_kernels(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
    known = {name.removeprefix("3264_"): int(value) for name, value in re.findall(pattern, header.read_text())}
    column = list(ARCHITECTURES).index(machine)

    wrong = {
        name: (pair[column], known.get(name))
        for name, pair in SYSCALLS.items()
        if name in known and known[name] != pair[column]
    }

    assert wrong == {}
    assert len(known.keys() & SYSCALLS.keys()) > 60


def test_an_architecture_without_a_table_has_no_filter() -> None:
    with pytest.raises(KeyError):
        build_filter("riscv64", SHARED)
