"""Is the memory of a command used up? The kernel says so where there is a control group; else we look by ourselves.

By ourselves: every process below us is asked for its anonymous memory, a few times a second. What processes share since
a fork is counted once only in a second, dearer look, which is taken when the first one finds too much. What can be
allocated between two looks is the overshoot: about 1 GB at the speed of this kernel's page clearing (4 GB/s).
"""

import os
import time
from collections.abc import Generator

from .cgroup import Group
from .processes import descendants, thread_folders

_LOOK_SECONDS = 0.25
_LEAST_REST = 20  # a look that cost t of processor time is followed by 20 t without one: 5 % at most
_LONGEST_REST_SECONDS = 2.0
_SLICE_SECONDS = 0.01  # a stop is not kept waiting longer, however many processes there are
_KIB = 1024


class GroupMemory:
    """Asks the kernel.

    Args:
        group: The group all processes of the command are in.
        limit: Bytes they may have together.
    """

    def __init__(self, group: Group, limit: int) -> None:
        self._group = group
        self._limit = limit

    def is_over(self) -> bool:
        """A process of the command has been killed for want of memory, or is about to be."""
        return self._group.has_run_out_of_memory() or self._group.holds_more_than(self._limit)


class WatchedMemory:
    """Looks by itself.

    Args:
        limit: Bytes all processes below this one may have together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._look: Generator[None, None, bool] | None = None
        self._cost = 0.0

    def is_over(self) -> bool:
        """The command uses more than it may; looks a slice further if it is time to."""
        start = time.monotonic()
        if self._look is None:
            if start < self._next_look:
                return False
            self._look, self._cost = _looking(self._limit), 0.0
        before = time.process_time()  # on a busy machine much more time goes by than is used
        found = _look_on(self._look, until=start + _SLICE_SECONDS)
        self._cost += time.process_time() - before
        if found is None:
            return False
        self._look = None
        self._next_look = start + min(max(_LOOK_SECONDS, self._cost * _LEAST_REST), _LONGEST_REST_SECONDS)
        return found


def _look_on(look: Generator[None, None, bool], *, until: float) -> bool | None:
    """What the look has found; None when it is not at its end by then."""
    try:
        while time.monotonic() < until:
            next(look)
    except StopIteration as found:
        return bool(found.value)
    return None


def _looking(limit: int) -> Generator[None, None, bool]:
    """Yields after every process."""
    pids = descendants(os.getpid())
    for ask in (_resident, _share):
        total = 0
        for pid in pids:
            total += ask(pid)
            yield
        if total <= limit:
            return False
    return True


def _resident(pid: int) -> int:
    """Anonymous and shared memory of one process, bytes; pages of files can be had back and do not count."""
    return _sum_fields(pid, "status", (b"RssAnon:", b"RssShmem:", b"VmSwap:")) or 0


def _share(pid: int) -> int:
    """The same with shared pages divided among those who share them (`proportional set size`), where we may see it."""
    share = _sum_fields(pid, "smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:"))
    return _resident(pid) if share is None else share


def _sum_fields(pid: int, name: str, fields: tuple[bytes, ...]) -> int | None:
    """Bytes, from the first thread that shows them; None if none does."""
    for folder in thread_folders(pid):
        found = _fields(f"{folder}/{name}", fields)
        if found:
            return sum(found)
    return None


def _fields(path: str, names: tuple[bytes, ...]) -> list[int]:
    try:
        with open(path, "rb") as file:
            return [int(line.split()[1]) * _KIB for line in file if line.startswith(names)]
    except OSError:  # it has just ended, or we may not see it
        return []
