"""How the engine is called for one command: what its container is made of, and shut off from."""

import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.base import Limits
from beray.server.sandbox.bubblewrap import TMP_BYTES
from beray.server.sandbox.container.engine import Engine, highest_limit
from beray.server.sandbox.environment import USER

_INIT_BYTES = 32 << 20  # process 1 with its python takes about 12 MB, and holds what a command is given to read
_INIT_PROCESSES = 1
# The server has 1024. A container's processes compete as one group, whatever their niceness: this is the weight of
# a process of niceness 5, which commands have elsewhere. An ordinary user's engine mostly has no say about it.
_CPU_SHARES = 335
# Of a uid, all its containers together. What counts is the limit of the control group; this one is only set because
# podman's own choice, a million, is more than an ordinary user or a server in a container may ask for.
_MANY_PROCESSES = 4096

BOOT = """
import sys
if sys.version_info < (3, 11):
    sys.exit("the python in the image is " + sys.version.split()[0] + "; 3.11 or newer is needed")
sys.path.insert(0, sys.argv[1])
from sandbox.container.init import main
main()
"""


@dataclass(frozen=True)
class Image:
    """What the operator chose.

    Attributes:
        number: The image, by its id.
        python: Interpreter in the image that runs process 1; looked up in the image's PATH when it has no slash.
        runtime: Name or path of the runtime (runsc, kata); None: the engine's own choice.
    """

    number: str
    python: str
    runtime: str | None


@dataclass(frozen=True)
class Container:
    """One command's container.

    Attributes:
        name: Its name in the engine.
        labels: As `name=value`.
        uid: Uid and gid inside.
        limits: What the command may use; those of single processes are set inside.
        read_only: Paths shown at the same place inside.
        writable: The same, for the task's folders.
        accounts: Files that stand for /etc/passwd and /etc/group.
        inside: Folder with the code of process 1, one of `read_only`.
    """

    name: str
    labels: tuple[str, ...]
    uid: int
    limits: Limits
    read_only: tuple[str, ...]
    writable: tuple[str, ...]
    accounts: tuple[Path, Path]
    inside: str


def run_command(engine: Engine, image: Image, container: Container) -> list[str]:
    """The command line that runs the container in the foreground and forgets it at its end."""
    return [
        engine.program,
        "run",
        *_lifetime(container),
        *_confinement(container),
        *(("--cpu-shares", str(_CPU_SHARES)) if not engine.is_rootless else ()),
        *_mounts(container),
        *(_podman_options(engine, container) if engine.kind == "podman" else ()),
        *(("--runtime", image.runtime) if image.runtime else ()),
        *("--entrypoint", image.python),
        image.number,
        *("-I", "-S", "-c", BOOT, container.inside),
    ]


def _lifetime(container: Container) -> Iterator[str]:
    """It lives as long as its standard input, writes no log, and is never fetched."""
    yield from ("--rm", "--interactive", "--pull", "never", "--name", container.name)
    yield from ("--log-driver", "none", "--no-healthcheck", "--sig-proxy=false", "--init=false")
    for label in container.labels:
        yield from ("--label", label)


def _confinement(container: Container) -> Iterator[str]:
    limits = container.limits
    memory = str(limits.memory_bytes + _INIT_BYTES)
    yield from ("--network", "none", "--ipc", "private", "--cgroupns", "private", "--hostname", USER)
    yield from ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--privileged=false")
    yield from ("--user", f"{container.uid}:{container.uid}", "--workdir", "/")
    yield from ("--memory", memory, "--memory-swap", memory)
    yield from ("--pids-limit", str(limits.processes + _INIT_PROCESSES))
    yield from ("--ulimit", _ulimit("nofile", _at_most(resource.RLIMIT_NOFILE, limits.open_files)))


def _mounts(container: Container) -> Iterator[str]:
    """Everything is read-only but the task's folders and small memory folders. Labels of SELinux stay as they are."""
    yield from ("--read-only", "--shm-size", str(TMP_BYTES), "--security-opt", "label=disable")
    yield from ("--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={TMP_BYTES}")  # noqa: S108 - inside only
    yield from _binds(((path, path) for path in container.read_only), suffix=",readonly")
    passwd, group = container.accounts
    yield from _binds(((str(passwd), "/etc/passwd"), (str(group), "/etc/group")), suffix=",readonly")
    yield from _binds(((path, path) for path in container.writable), suffix="")


def _binds(pairs: Iterable[tuple[str, str]], *, suffix: str) -> Iterator[str]:
    for source, target in pairs:
        yield from ("--mount", f"type=bind,source={source},target={target}{suffix}")


def _podman_options(engine: Engine, container: Container) -> Iterator[str]:
    """What docker does not do anyway."""
    yield from ("--read-only-tmpfs=false", "--image-volume", "ignore", "--no-hosts", "--http-proxy=false")
    processes = max(_MANY_PROCESSES, 2 * container.limits.processes)
    yield from ("--ulimit", _ulimit("nproc", _at_most(resource.RLIMIT_NPROC, processes)))
    if engine.is_rootless:
        yield from ("--userns", "keep-id")


def _at_most(kind: int, wanted: int) -> int:
    highest = highest_limit(kind)
    return wanted if highest is None else min(wanted, highest)


def _ulimit(name: str, value: int) -> str:
    return f"{name}={value}:{value}"
