"""Which uid a task's commands run under when the server is root: one a task, from a range that belongs to nobody."""

import os
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.base import SandboxUnavailable

# 1 879 048 192 and above is used by no distribution, container manager or directory service (systemd's UIDS-GIDS). A
# container that maps fewer uids (65 536 is usual) gets the second range: above people, below systemd's dynamic users.
_RANGES = ((1_900_000_000, 1_000_000), (30_000, 30_000))
_LEAST = 16  # a smaller range would give running tasks the same uid
NEEDED_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}


@dataclass(frozen=True)
class TaskUids:
    """The uids of tasks; call it with a task's id. `base` None: the server is not root, tasks have its own uid."""

    base: int | None
    count: int = 0

    def __call__(self, task_id: int) -> int | None:
        """The uid (and gid) of a task's files and commands; None when the server is not root."""
        return None if self.base is None else self.base + task_id % self.count

    @property
    def of_probe(self) -> int | None:
        """A uid no task has."""
        return None if self.base is None else self.base + self.count


def task_uids(base: int = 0) -> TaskUids:
    """The uids tasks have here.

    Args:
        base: First of them (`sandbox_uid_base`); 0: choose.

    Raises:
        SandboxUnavailable: The server is root, but may not change uids, or has none to give.
    """
    if os.geteuid() != 0:
        return TaskUids(None)
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    if missing:
        raise SandboxUnavailable(
            f"The server is root but lacks the capabilities {', '.join(missing)}, so commands can't be given a uid of"
            " their own, and they never run as root. Run the server (or its container) as an ordinary user, or give it"
            f" {', '.join(NEEDED_CAPABILITIES)}."
        )
    mapped = _common(_mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map"))
    return _choose(mapped, base)


def missing_capabilities(status: str) -> list[str]:
    """Names of the capabilities a root server needs and lacks, from the text of /proc/self/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    return [name for name, bit in NEEDED_CAPABILITIES.items() if not effective >> bit & 1]


def _choose(mapped: list[range], base: int) -> TaskUids:
    wanted = ((base, _RANGES[0][1]),) if base else _RANGES
    for first, most in wanted:
        for block in mapped:
            count = min(first + most + 1, block.stop) - first - 1  # one more for the probe
            if first in block and count >= _LEAST:
                return TaskUids(first, count)
    shown = ", ".join(f"{block.start}-{block.stop - 1}" for block in mapped) or "none"
    raise SandboxUnavailable(
        f"The server is root, but there is no free range of uids for tasks from {' or '.join(str(w[0]) for w in wanted)}"
        f" (mapped here: {shown}). Set BERAY_SANDBOX_UID_BASE to the first of {_LEAST + 1} or more unused uids, or run"
        " the server (or its container) as an ordinary user."
    )


def _mapped(path: str) -> list[range]:
    """The numbers that exist in our user namespace: lines of `inside outside count`."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return sorted((range(int(line[0]), int(line[0]) + int(line[2])) for line in lines), key=lambda block: block.start)


def _common(left: list[range], right: list[range]) -> list[range]:
    both = [range(max(a.start, b.start), min(a.stop, b.stop)) for a in left for b in right]
    return [block for block in both if block]
