"""The container engine, podman or docker, through its command-line program: found, asked, and told to clean up.

The program gets the few variables it needs to find its own engine and settings, never the server's environment. Its
socket is never shown to a command.
"""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beray.server.sandbox.base import SandboxUnavailable

ASK_SECONDS = 30.0  # an engine that has just been started reads its whole store first
REMOVE_SECONDS = 30.0

_VARIABLES = (
    # where programs, settings and stores are
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    # which engine, when the operator has another one than the default
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "CONTAINER_HOST",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
)
_AUTO = ("podman", "docker")
_MESSAGE_CHARACTERS = 400

Kind = Literal["podman", "docker"]


class EngineError(Exception):
    """The engine refused; the text is its own, shortened."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers.

    Attributes:
        program: Absolute path of its command-line program.
        kind: Whose options it takes.
        version: As it tells itself.
        is_rootless: Its containers belong to an ordinary user.
    """

    program: str
    kind: Kind
    version: str
    is_rootless: bool

    def ask(self, *arguments: str, seconds: float = ASK_SECONDS) -> str:
        """What the engine prints. Blocks.

        Raises:
            EngineError: It refused, or did not answer in time.
        """
        return _ask(self.program, arguments, seconds)

    def image_id(self, name: str) -> str:
        """The image that has this name now; commands are given it by number, so that all get the same. Blocks.

        Raises:
            SandboxUnavailable: There is none in the engine's store; it is never fetched by itself.
        """
        try:
            return self.ask("image", "inspect", "--format", "{{.Id}}", name)
        except EngineError as error:
            raise SandboxUnavailable(
                f"{self.kind} has no image {name} ({error}). The server never fetches one: build it (the page about the"
                f" sandbox has a recipe) or get it with `{self.kind} pull {name}`, as the user the server runs as, or"
                " name another with BERAY_SANDBOX_CONTAINER_IMAGE"
            ) from error

    def containers(self, label: str) -> list[tuple[str, str]]:
        """Id of each container with this label, and its label `beray.server`. Blocks.

        Raises:
            EngineError: The engine refused.
        """
        server = 'index .Labels "beray.server"' if self.kind == "podman" else '.Label "beray.server"'
        shown = f"{{{{.ID}}}} {{{{{server}}}}}"
        told = self.ask("ps", "--all", "--filter", f"label={label}", "--format", shown)
        pairs = (line.partition(" ") for line in told.splitlines())
        return [(number, server) for number, _, server in pairs]

    def removal(self, names: Sequence[str]) -> list[str]:
        """The command line that kills containers and forgets them."""
        at_once = ["--time", "0"] if self.kind == "podman" else []
        return [self.program, "rm", "--force", *at_once, *names]

    def remove(self, names: Sequence[str]) -> None:
        """Kill containers and forget them; those that are gone already are no error. Blocks."""
        for name in names:
            try:
                _ask(self.program, self.removal([name])[1:], REMOVE_SECONDS)
            except EngineError:
                continue


def find_engine(wish: str) -> Engine:
    """The engine to use. Blocks.

    Args:
        wish: `auto`, `podman`, `docker`, or the path of such a program.

    Raises:
        SandboxUnavailable: None can be had; says why, and the remedy.
    """
    reasons: list[str] = []
    for name in _AUTO if wish == "auto" else (wish,):
        try:
            return _try_engine(name)
        except SandboxUnavailable as error:
            reasons.append(str(error))
    raise SandboxUnavailable("; ".join(reasons))


def _try_engine(name: str) -> Engine:
    program = shutil.which(name)
    if program is None:
        raise SandboxUnavailable(
            f"the program {name} is not installed (Debian, Ubuntu: apt install podman; Fedora: dnf install podman)"
        )
    program = str(Path(program).absolute())
    kind = _kind(program)
    asked = "{{.Host.Security.Rootless}} {{.Version.Version}}"
    if kind == "docker":
        asked = "{{.SecurityOptions}} {{.ServerVersion}}"
    try:
        told = _ask(program, ["info", "--format", asked], ASK_SECONDS)
    except EngineError as error:
        start = "start its service, and let the server's user use it" if kind == "docker" else "try `podman info`"
        raise SandboxUnavailable(f"{kind} does not answer: {error} ({start})") from error
    security, _, version = told.rpartition(" ")
    is_rootless = "rootless" in security or security == "true"
    if kind == "docker" and is_rootless:
        raise SandboxUnavailable(
            "docker is rootless here, so that only root inside a container would be the server's own user, and commands"
            " never run as root; use podman, which can give them another uid"
        )
    return Engine(program, kind, version, is_rootless)


def _kind(program: str) -> Kind:
    """Podman says the name it was called by, which may be a link's: then the program's own file tells."""
    told = _ask_version(program)
    match = re.search(r"\b(podman|docker)", f"{told} {Path(os.path.realpath(program)).name}", re.IGNORECASE)
    if match is None:
        raise SandboxUnavailable(f"{program} is neither podman nor docker: it says {told!r}")
    return "podman" if match[1].lower() == "podman" else "docker"


def _ask_version(program: str) -> str:
    try:
        return _ask(program, ["--version"], ASK_SECONDS)
    except EngineError as error:
        raise SandboxUnavailable(f"{program} can't be run: {error}") from error


def engine_environment() -> dict[str, str]:
    """All that the engine's program sees of the server's variables."""
    environment = os.environ  # noqa: TID251  # the engine's own variables, passed on and not read
    return {name: environment[name] for name in _VARIABLES if name in environment}


def highest_limit(kind: int) -> int | None:
    """The limit of this process that no child can raise; None where there is none."""
    hard = resource.getrlimit(kind)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _ask(program: str, arguments: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=engine_environment(),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"no answer within {seconds:g} s") from error
    except OSError as error:
        raise EngineError(str(error)) from error
    if done.returncode != 0:
        raise EngineError(shortened(done.stderr))
    return done.stdout.decode(errors="replace").strip()


def shortened(text: bytes) -> str:
    """The end of what an engine said, for a message, without its advice to read the manual."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line and "--help" not in line]
    return " ".join(lines).strip()[-_MESSAGE_CHARACTERS:] or "it says nothing"


def label_of(data_dir: Path) -> str:
    """The label of all containers that belong to this data folder, of whichever server."""
    return f"beray.data={os.path.realpath(data_dir)}"
