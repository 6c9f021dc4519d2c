"""Control groups: one for each command, in which memory and processes count as a sum.

A process is moved into its group before there is a command for it (`forkserver.py` keeps supervisors in reserve): the
move waits for a grace period of the kernel, 8 to 20 ms for each hierarchy on Linux 6.18, while all else here takes 0.3.

Version 2 is used where a subtree is delegated to us: a service with `Delegate=yes`, a scope of systemd (`scope.py`
starts us in one), a container with a writable hierarchy. Version 1 where `memory` and `pids` are mounted so and we may
make folders there.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .processes import children_by_parent

_OWN_MEMORY_BYTES = 16 << 20  # the supervisor lives in the group too (5 MB of its own, and what it scans)
_PREFIX = "beray-"
_SERVER_GROUP = f"{_PREFIX}server"
_CONTROLLERS = ("memory", "pids")
_MOVES_MOST = 10  # passes over the server's processes: one that is forked while we move stays behind

SYSTEMD = "/run/systemd/system"  # as sd_booted(3) looks
SCOPE_PREFIX = f"{_PREFIX}commands-"
_DELEGATED = ("trusted.delegate", "user.delegate")  # attributes that systemd sets; the second since version 251


class NoCgroups(Exception):
    """There is no control group we may use; the text says why."""


@dataclass(frozen=True)
class _Names:
    """What the files of one version are called."""

    limit: str
    swap_limit: str
    usage: str
    kept: tuple[str, ...]  # of memory.stat: what can't be had back by dropping pages of files
    oom: str


_FILES = {
    1: _Names(
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.usage_in_bytes",
        ("rss", "shmem"),
        "memory.oom_control",
    ),
    2: _Names("memory.max", "memory.swap.max", "memory.current", ("anon", "shmem"), "memory.events"),
}


@dataclass(frozen=True)
class Group:
    """The group of one command: a folder of each hierarchy, which is one and the same in version 2.

    With `cpu` all processes of a command together get as much of a busy processor as one process does: a fork bomb
    takes no more from the server than any command.
    """

    version: int
    memory: str
    pids: str
    cpu: str | None = None

    def join(self) -> None:
        """Move this process in."""
        for folder in self.folders():
            _write(f"{folder}/cgroup.procs", "0")

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """What the group may use: swap is none of it, and the supervisor's memory not counted, but its process is."""
        names = _FILES[self.version]
        memory = memory_bytes + _OWN_MEMORY_BYTES
        _write(f"{self.memory}/{names.limit}", str(memory))
        if os.path.exists(f"{self.memory}/{names.swap_limit}"):
            _write(f"{self.memory}/{names.swap_limit}", "0" if self.version == 2 else str(memory))
        _write(f"{self.pids}/pids.max", str(processes))

    def has_run_out_of_memory(self) -> bool:
        """The kernel has killed a process of the group because its memory was used up."""
        try:
            return _fields(f"{self.memory}/{_FILES[self.version].oom}").get("oom_kill", 0) > 0
        except OSError:  # somebody has removed the group under our feet
            return False

    def holds_more_than(self, size: int) -> bool:
        """Its processes have more memory than this, apart from pages of files.

        Near its limit a group may be busy for minutes with reading such pages again and again, before the kernel kills.
        """
        names = _FILES[self.version]
        try:
            with open(f"{self.memory}/{names.usage}") as file:
                if int(file.read()) <= size:
                    return False
            fields = _fields(f"{self.memory}/memory.stat")
        except OSError:
            return False
        return sum(fields.get(name, 0) for name in names.kept) > size

    def remove(self) -> bool:
        """Remove it; False while processes are left in it."""
        for folder in self.folders():
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def folders(self) -> Iterable[str]:
        """One of each hierarchy."""
        return dict.fromkeys(folder for folder in (self.memory, self.pids, self.cpu) if folder is not None)


class Cgroups:
    """Where this process may make groups.

    Args:
        server: Process number of the server, our parent: it moves with us where the group of both is divided.

    Raises:
        NoCgroups: Nowhere.
    """

    def __init__(self, server: int) -> None:
        try:
            self._place = _find_place(server)
            if self._place.version == 2:
                _divide(self._place.memory, server)
            for folder in self._place.folders():
                _remove_stale(folder)
        except OSError as error:
            raise NoCgroups(f"{error.strerror}: {error.filename}") from error
        self._made = 0

    def make_group(self) -> Group:
        """A new group, without limits.

        Raises:
            OSError: It can't be made.
        """
        self._made += 1
        name = f"{_PREFIX}command-{os.getpid()}-{self._made}"
        place = self._place
        cpu = None if place.cpu is None else f"{place.cpu}/{name}"
        group = Group(place.version, f"{place.memory}/{name}", f"{place.pids}/{name}", cpu)
        for folder in group.folders():
            os.mkdir(folder)
        return group


def lacks_place() -> str | None:
    """Why a child of this process could make no groups as things are; None if it could. Changes nothing."""
    try:
        _find_place(os.getpid())
    except NoCgroups as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return None


def is_version_2() -> bool:
    """Memory and processes are counted by version 2 here, if at all."""
    try:
        own = _own_folders()
    except OSError:
        return False
    return "" in own and own.keys().isdisjoint(_CONTROLLERS)


def _find_place(server: int) -> Group:
    """The group below which there may be others."""
    own = _own_folders()
    if "memory" in own and "pids" in own:
        cpu = own["cpu"] if _is_writable(own.get("cpu", "")) else None
        return Group(1, _check_writable(own["memory"]), _check_writable(own["pids"]), cpu)
    if "" not in own:
        raise NoCgroups("no hierarchy of control groups with memory and pids is mounted")
    folder = own[""]
    if os.path.basename(folder) == _SERVER_GROUP:  # a fork server before us has divided it
        folder = os.path.dirname(folder)
    _check_subtree(folder, server)
    return Group(2, folder, folder)


def _own_folders() -> dict[str, str]:
    """Folders of the groups this process is in, by controller; that of version 2 under an empty name."""
    mounts = _mounts()
    found = {}
    with open("/proc/self/cgroup") as file:
        for line in file.read().splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                if name in mounts:
                    root, mount = mounts[name]
                    found[name] = os.path.normpath(f"{mount}/{os.path.relpath(path, root)}")
    return found


def _mounts() -> dict[str, tuple[str, str]]:
    """Root and mount point of each hierarchy, by controller."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            after = fields[fields.index("-") + 1 :]
            names = [""] if after[0] == "cgroup2" else after[2].split(",") if after[0] == "cgroup" else []
            for name in names:
                found.setdefault(name, (fields[3], fields[4]))
    return found


def _is_writable(folder: str) -> bool:
    return os.access(folder, os.W_OK) and os.access(f"{folder}/cgroup.procs", os.W_OK)


def _check_writable(folder: str) -> str:
    if not _is_writable(folder):
        raise NoCgroups(f"{folder} can't be written")
    return folder


def _check_subtree(folder: str, server: int) -> None:
    """It is ours alone, and can hold groups that count what we want to be counted."""
    _check_writable(folder)
    with open(f"{folder}/cgroup.controllers") as file:
        offered = file.read().split()
    missing = [name for name in _CONTROLLERS if name not in offered]
    if missing:
        raise NoCgroups(f"{folder} has no controller {' and '.join(missing)}")
    if not _is_delegated(folder):
        raise NoCgroups(f"nothing tells that systemd has delegated {folder} (Delegate=yes)")
    if not _is_root(folder) and not _tree(server).issuperset(_processes_in(folder)):
        raise NoCgroups(f"{folder} is shared with other programs")


def _is_delegated(folder: str) -> bool:
    """Systemd leaves it to us. Where it does not, root and all below a user's manager may write what is not theirs."""
    if not os.path.exists(SYSTEMD) or any(_has_attribute(folder, name) for name in _DELEGATED):
        return True
    if os.path.basename(folder).startswith(SCOPE_PREFIX):  # before systemd 251 a user can't see that it is delegated
        return True
    return os.geteuid() != 0 and "/user@" not in folder


def _has_attribute(folder: str, name: str) -> bool:
    try:
        return os.getxattr(folder, name) == b"1"
    except OSError:
        return False


def _is_root(folder: str) -> bool:
    """The machine's root group may have both: processes, and groups that are limited."""
    return not os.path.exists(f"{folder}/cgroup.type")


def _tree(server: int) -> set[int]:
    """The server and all below it. Should it have ended, we are not its child any more, and nothing is ours to move."""
    children = children_by_parent()
    found: set[int] = set()
    waiting = [server] if server in (os.getpid(), os.getppid()) else []
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, ())
    return found


def _processes_in(folder: str) -> list[int]:
    with open(f"{folder}/cgroup.procs") as file:
        return [int(line) for line in file.read().split()]


def _divide(folder: str, server: int) -> None:
    """Make it a group that holds groups: it must have no processes of its own then."""
    inner = f"{folder}/{_SERVER_GROUP}"
    for _ in range(0 if _is_root(folder) else _MOVES_MOST):
        pids = _processes_in(folder)
        if not pids:
            break
        if not _tree(server).issuperset(pids):
            raise NoCgroups(f"{folder} is shared with other programs")
        os.makedirs(inner, exist_ok=True)
        _move(pids, inner)
    _enable(folder)


def _move(pids: Iterable[int], folder: str) -> None:
    for pid in pids:
        try:
            _write(f"{folder}/cgroup.procs", str(pid))
        except ProcessLookupError:  # it has just ended
            continue


def _enable(folder: str) -> None:
    _write(f"{folder}/cgroup.subtree_control", " ".join(f"+{name}" for name in _CONTROLLERS))
    try:
        _write(f"{folder}/cgroup.subtree_control", "+cpu")
    except OSError:  # not offered, or taken by real-time processes: commands weigh by their processes then
        pass


def _remove_stale(folder: str) -> None:
    """Groups of servers that were killed are empty and stay; those of a live one are not ours to touch."""
    pattern = re.compile(rf"{_PREFIX}command-(\d+)-\d+")
    for name in os.listdir(folder):
        owner = pattern.fullmatch(name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            try:
                os.rmdir(f"{folder}/{name}")
            except OSError:  # in use after all (its owner is in another PID namespace), or gone
                continue


def _fields(path: str) -> dict[str, int]:
    """A file of lines with a name and a number; other lines are left out."""
    with open(path) as file:
        return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", file.read(), re.MULTILINE)}


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
