"""Find and kill processes by descent, by reading /proc: works everywhere, but has to run until nothing is left.

A process forked while we read is found by the next pass: its killed parent leaves it to a subreaper, which is us.
"""

import os
import signal
from collections.abc import Collection, Iterable

_PASSES_MOST = 20


def children_by_parent() -> dict[int, list[int]]:
    """Every process we can see, under its parent's number."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    return children


def _parent(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            line = file.read()
    except OSError:  # it has just ended
        return None
    # The name in brackets may hold anything, brackets and spaces too: what follows its last bracket is ours to split.
    return int(line[line.rindex(b")") + 2 :].split(maxsplit=2)[1])


def descendants(root: int, *, spare: Collection[int] = ()) -> list[int]:
    """All processes below `root`, parents first, without the trees whose top is in `spare`."""
    children = children_by_parent()
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in spare:
                found.append(child)
                waiting.append(child)
    return found


def thread_folders(pid: int) -> list[str]:
    """The folder in /proc of each thread of a process, the first thread's first; none when the process is gone.

    A first thread that has ended shows neither memory nor descriptors there, while the others still have them; and a
    thread may have descriptors of its own.
    """
    folder = f"/proc/{pid}/task"
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def has_ended(thread: str) -> bool:
    """The thread is gone, or about to be: it has no memory any more, and its folder belongs to root then."""
    try:
        with open(f"{thread}/status", "rb") as file:
            return b"\nVmSize:" not in file.read()
    except OSError:
        return True


def kill_descendants(*, spare: Collection[int] = ()) -> int:
    """Kill every process below us but the trees in `spare`; returns how many there were.

    They are stopped first, pass after pass, until no new one turns up: a fork bomb whose processes were killed one by
    one would fill their places as fast, while stopped ones keep them and leave the processor to us.
    """
    stopped: set[int] = set()
    for _ in range(_PASSES_MOST):
        found = descendants(os.getpid(), spare=spare)
        new = [pid for pid in found if pid not in stopped]
        if not new:
            break
        _signal_all(new, signal.SIGSTOP)
        stopped.update(new)
    _signal_all(stopped, signal.SIGKILL)
    return len(stopped)


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):  # gone meanwhile, or its number is another's by now
            continue
