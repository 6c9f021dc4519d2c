"""The bubblewrap backend: namespaces made by the `bwrap` program, plus our filter and limits.

Rules that experience taught (each was an attack that worked):

- `bwrap` is started with an empty environment and its options come by a descriptor: inside, /proc/1 shows both.
- No mount point below a folder a command can write: `bwrap` would follow its links out of the new root while it makes
  the mount point (CVE-2026-87766). The work_dir and the home are mounted themselves, and nothing under them.
- Writable tmpfs have a size, everything else is read-only, /dev included.
- The limit on processes is set inside, where it counts the sandbox's processes only.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.backend import Place
from beray.server.sandbox.base import Limits, SandboxError
from beray.server.sandbox.environment import ETC_FOLDERS, ETC_SMALL_FILES, SYSTEM_FOLDERS, USER, Account
from beray.server.sandbox.guard.wire import BubblewrapJob

TMP_BYTES = 64 << 20  # /tmp and /dev/shm each, in memory; bigger files belong to TMPDIR, which is on disk

_PRLIMIT = "/usr/bin/prlimit"
_OPENER = "/run/beray/egress.py"
_NAMESPACES = ("user", "pid", "net", "ipc", "uts")
_MOUNTING = {"--bind": 2, "--ro-bind": 2, "--ro-bind-try": 2, "--symlink": 2, "--dir": 1}
_MOUNTING |= {"--proc": 1, "--dev": 1, "--tmpfs": 1}


@dataclass(frozen=True)
class BubblewrapConfine:
    """Confine by the `bwrap` at `program`."""

    program: str
    scopes_signals: bool
    name: str = "bubblewrap"

    def confine(self, place: Place, limits: Limits) -> BubblewrapJob:
        """The options, in the order they are carried out."""
        options = (*_namespace_options(), *_mount_options(place))
        check_targets(options, writable=(place.work_dir, place.home))
        account = Account(place.uid, place.home)
        wrapper = (_PRLIMIT, f"--nproc={limits.processes}", "--") if has_prlimit() else ()
        accounts = {"/etc/passwd": account.passwd, "/etc/group": account.group}
        made = accounts | ({_OPENER: _opener_source()} if place.has_egress else {})
        opener = (str(place.layout.interpreter), "-I", "-S", _OPENER) if place.has_egress else ()
        return BubblewrapJob(self.program, options, ETC_SMALL_FILES, made, ("--remount-ro", "/"), wrapper, opener)


@functools.cache
def _opener_source() -> str:
    return (Path(__file__).parent / "guard" / "egress.py").read_text()


def has_prlimit() -> bool:
    """There is a program that sets the limit on processes inside."""
    return os.access(_PRLIMIT, os.X_OK)


def _namespace_options() -> list[str]:
    options = [f"--unshare-{namespace}" for namespace in _NAMESPACES]
    return [
        *options,
        "--unshare-cgroup-try",
        *("--hostname", USER),
        "--die-with-parent",
        *("--cap-drop", "ALL"),
    ]


def _mount_options(place: Place) -> list[str]:
    options: list[str] = []
    for folder in SYSTEM_FOLDERS:
        options += _system_folder(folder)
    for path in ETC_FOLDERS:
        options += ["--ro-bind-try", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", *_sized_tmpfs("/dev/shm"), "--remount-ro", "/dev"]  # noqa: S108 - inside only
    options += [*_sized_tmpfs("/tmp"), "--dir", "/run", "--dir", "/var"]  # noqa: S108 - inside only
    has_own = place.work_dir.startswith("/var/tmp/")  # noqa: S108 - by a link it would have another name inside
    options += _sized_tmpfs("/var/tmp") if has_own else ["--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - inside only
    for path in place.layout.read_only:
        options += ["--ro-bind", path, path]
    return [*options, "--bind", place.home, place.home, "--bind", place.work_dir, place.work_dir]


def _system_folder(folder: str) -> list[str]:
    path = Path(folder)
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), folder]
    return ["--ro-bind", folder, folder] if path.is_dir() else []


def _sized_tmpfs(target: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", target]


def check_targets(options: tuple[str, ...], *, writable: tuple[str, ...]) -> None:
    """Make sure that nothing is mounted below a folder a command can write.

    Raises:
        SandboxError: Something would be.
    """
    for index, option in enumerate(options):
        if option in _MOUNTING:
            target = options[index + _MOUNTING[option]]
            if any(target.startswith(f"{folder}/") for folder in writable):
                raise SandboxError(f"{target} lies below a folder that commands can write; it can't be mounted.")
