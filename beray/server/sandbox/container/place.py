"""The container backend's folder in the data folder: what is shown inside, and who holds it.

`inside-<digest>` holds process 1 with what it imports; a container gets it read-only. It is copied there, since the
server's own packages may lie where the engine, or a task's uid, can't reach them. `servers/<token>` is a server's own
and locked as long as it lives: a token nobody holds is a dead server's, whose containers may go.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from beray.server.sandbox.base import SandboxUnavailable
from beray.server.sandbox.container.engine import Engine, EngineError, label_of
from beray.server.sandbox.environment import GITCONFIG, Account, Layout
from beray.server.sandbox.interpreter import replace_file

_PACKAGE = Path(__file__).parents[1]
_COPIED = ("guard/*.py", "container/__init__.py", "container/frames.py", "container/init.py")
_LOCK = "lock"
_UNMOUNTABLE = ',:"\n\\'


class Holding:
    """This server's folder, locked; the lock ends with the process at the latest.

    Args:
        servers: Where each server has its own.
    """

    def __init__(self, servers: Path) -> None:
        servers.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=servers))
        self._lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.token = secrets.token_hex(6)
        self._folder = unfinished.rename(servers / self.token)  # only now others see it, and it is locked
        self._is_held = True

    def write_accounts(self, name: str, account: Account) -> tuple[Path, Path]:
        """A passwd and a group file of one command, in which its uid has a name and a home."""
        passwd, group = self._folder / f"{name}.passwd", self._folder / f"{name}.group"
        for path, content in ((passwd, account.passwd), (group, account.group)):
            path.write_text(content)
            path.chmod(0o644)
        return passwd, group

    def remove_accounts(self, name: str) -> None:
        """Take them away; the command has ended."""
        for kind in ("passwd", "group"):
            (self._folder / f"{name}.{kind}").unlink(missing_ok=True)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._is_held:
            self._is_held = False
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)


def is_held(servers: Path, token: str) -> bool:
    """A server with this token lives. The folder of one that does not is taken away."""
    try:
        fd = os.open(servers / token / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    shutil.rmtree(servers / token, ignore_errors=True)
    return False


def remove_leftovers(engine: Engine, data_dir: Path, servers: Path) -> int:
    """Remove the containers that dead servers of this data folder have left; how many there were. Blocks.

    Raises:
        SandboxUnavailable: The engine does not tell what it holds.
    """
    try:
        found = engine.containers(label_of(data_dir))
    except EngineError as error:
        raise SandboxUnavailable(f"{engine.kind} does not tell its containers: {error}") from error
    dead = [number for number, token in found if not token.isalnum() or not is_held(servers, token)]
    for folder in servers.glob("[!.]*"):
        is_held(servers, folder.name)
    engine.remove(dead)
    return len(dead)


def container_layout(root: Path) -> Layout:
    """The part of the sandbox's folder that commands in containers see.

    Args:
        root: `<data_dir>/sandbox`.

    Raises:
        SandboxUnavailable: Its path can't be written in an engine's options.
    """
    check_mountable(root)
    folder = root / "container"
    layout = Layout(folder)
    for each in (folder, layout.bin):
        each.mkdir(exist_ok=True)
        each.chmod(0o755)
    for name in ("python", "python3"):  # of an earlier image; what this one has is found out
        (layout.bin / name).unlink(missing_ok=True)
    replace_file(layout.gitconfig, GITCONFIG, mode=0o644)
    return layout


def check_mountable(path: Path) -> None:
    """Refuse a path that engines can't be told to mount.

    Raises:
        SandboxUnavailable: It holds a character with a meaning of its own there.
    """
    found = [character for character in _UNMOUNTABLE if character in str(path)]
    if found:
        raise SandboxUnavailable(
            f"the path {str(path)!r} holds {found[0]!r}, and engines can't mount such a folder; set BERAY_DATA_DIR to"
            " another one"
        )


def copy_inside(layout: Layout) -> Path:
    """The folder with process 1's code, made when it is not there yet."""
    files = {path.relative_to(_PACKAGE): path for pattern in _COPIED for path in sorted(_PACKAGE.glob(pattern))}
    contents = {name: path.read_bytes() for name, path in files.items()}
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:12]
    target = layout.root / f"inside-{digest}"
    if target.exists():
        return target
    unfinished = Path(tempfile.mkdtemp(prefix=".inside-", dir=layout.root))
    contents[Path("__init__.py")] = b""
    for name, content in contents.items():
        path = unfinished / "sandbox" / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    for folder in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    try:
        unfinished.rename(target)
    except OSError:  # another server was faster
        if not target.exists():
            raise
    return target
