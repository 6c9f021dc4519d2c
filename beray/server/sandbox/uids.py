"""Which uid a task's commands run under when the server is root: one a task, from a range that belongs to nobody."""

import functools
import os
from pathlib import Path

from beray.server.sandbox.base import SandboxUnavailable

# (first, how many). From 1,879,048,192 on systemd's UIDS-GIDS has no use. A container that maps fewer (65,536 is
# usual) gets the second range: above people's, below systemd's dynamic ones.
_RANGES = ((1_900_000_000, 1_000_000), (30_000, 30_000))
_LEAST = 17  # a smaller range would give running tasks the same uid
NEEDED_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}


class TaskUids:
    """The uid of each task; call it with a task's id. What it needs of the machine is looked up at its first use.

    Args:
        first: The lowest uid to give (`sandbox_uid_base`); 0: choose.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first

    def __call__(self, task_id: int) -> int | None:
        """The uid (and gid) of a task's files and commands; None when the server is not root.

        Raises:
            SandboxUnavailable: The server is root, but may not change uids, or has none to give.
        """
        uids = self._uids
        return None if uids is None else uids[task_id % (len(uids) - _reserved(uids))]

    @property
    def of_probe(self) -> int | None:
        """A uid no task has, nor another server's probe at the same time; None when the server is not root.

        Raises:
            SandboxUnavailable: As for a task.
        """
        uids = self._uids
        return None if uids is None else uids[-1 - os.getpid() % _reserved(uids)]

    @functools.cached_property
    def _uids(self) -> range | None:
        if os.geteuid() != 0:
            return None
        missing = missing_capabilities(Path("/proc/self/status").read_text())
        if missing:
            raise SandboxUnavailable(
                f"The server is root but lacks the capabilities {', '.join(missing)}, so commands can't be given a uid"
                " of their own, and they never run as root. Run the server (or its container) as an ordinary user, or"
                f" give it {', '.join(NEEDED_CAPABILITIES)}."
            )
        return choose_uids(common_ranges(_mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map")), self._first)


def _reserved(uids: range) -> int:
    """How many of the uids, the last ones, are for probes."""
    return max(1, len(uids) // 10)


def missing_capabilities(status: str) -> list[str]:
    """Names of the capabilities a root server needs and lacks, from the text of /proc/self/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for name, bit in NEEDED_CAPABILITIES.items() if not effective >> bit & 1]


def choose_uids(mapped: list[range], first: int) -> range:
    """The uids to use of those that exist here.

    Raises:
        SandboxUnavailable: There are too few.
    """
    wanted = ((first, _RANGES[0][1]),) if first else _RANGES
    for lowest, most in wanted:
        for block in mapped:
            uids = range(lowest, min(lowest + most, block.stop))
            if lowest in block and len(uids) >= _LEAST:
                return uids
    shown = ", ".join(f"{block.start}-{block.stop - 1}" for block in mapped) or "none"
    starts = " or ".join(str(lowest) for lowest, _ in wanted)
    raise SandboxUnavailable(
        f"The server is root, but there is no free range of uids for tasks from {starts} (existing here: {shown}). Set"
        f" BERAY_SANDBOX_UID_BASE to the first of {_LEAST} or more unused uids, or run the server (or its container) as"
        " an ordinary user."
    )


def _mapped(path: str) -> list[range]:
    return parse_id_map(Path(path).read_text())


def parse_id_map(content: str) -> list[range]:
    """The numbers that exist in a user namespace, from its uid_map or gid_map: lines of `inside outside count`."""
    lines = [line.split() for line in content.splitlines()]
    return sorted((range(int(line[0]), int(line[0]) + int(line[2])) for line in lines), key=lambda block: block.start)


def common_ranges(left: list[range], right: list[range]) -> list[range]:
    """The numbers in both lists."""
    both = [range(max(a.start, b.start), min(a.stop, b.stop)) for a in left for b in right]
    return [block for block in both if block]
