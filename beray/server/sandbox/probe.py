"""Run a harmless attacker in a sandbox and report what it could do: what was seen, not what should be.

The attacker (`attacker.py`) gets a stage built for it: another task's folder, a decoy process of the server's user
with a canary in its environment, listeners of every kind on this machine. What counts is what happened to them.
"""

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from beray.server.sandbox.base import Confinement, Exit, Limits, Process, SandboxError, SandboxUnavailable, Spec
from beray.server.sandbox.environment import Layout

LIMITS = Limits(
    wall_seconds=20,
    memory_bytes=256 << 20,
    processes=24,
    file_bytes=1 << 20,
    disk_bytes=16 << 20,
    cpu_seconds=10,
    open_files=256,
)
_FORKS = 2 * LIMITS.processes
_BOMB_LIMITS = dataclasses.replace(  # its time is more than a disk is ever left alone (`guard.disk`)
    LIMITS, wall_seconds=12, memory_bytes=64 << 20, file_bytes=1 << 30
)
_OUTPUT_BYTES = 4096
_MODE = 0o600
_ATTACKER = Path(__file__).parent / "attacker.py"


class Started(Process, Protocol):
    """A command that tells how it is watched."""

    @property
    def lacks_group(self) -> str | None:
        """Why it has no control group; None when it has one."""
        ...


class Starter(Protocol):
    """What is probed."""

    layout: Layout

    async def start(self, spec: Spec) -> Started:
        """See the port `Sandbox.start`."""
        ...


@dataclass(frozen=True)
class Probing:
    """What a probe saw."""

    confinements: tuple[Confinement, ...]
    notes: tuple[str, ...]


async def run_probe(launcher: Starter, *, python: str, uid: int | None, has_quotas: bool = False) -> Probing:
    """Let the attackers loose, all at the same time; but where the disk has quotas they come before the one that uses
    up the quota, which is that of the uid they share.

    Raises:
        SandboxUnavailable: One could not be run, or the sandbox leaves processes behind.
    """
    others = asyncio.gather(
        _run_attacker(launcher, python=python, uid=uid),
        _run_bomb("memory", launcher, python=python, uid=uid),
    )
    if has_quotas:
        await others
    (attack, memory), disk = await asyncio.gather(others, _run_bomb("disk", launcher, python=python, uid=uid))
    rows = (*attack.confinements, _memory_row(memory), _disk_row(disk))
    return Probing(rows, attack.notes)


@dataclass(frozen=True)
class _Bombed:
    """How a command ended that took more than it may."""

    how: Exit
    output: bytes
    lacks_group: str | None
    """Why it had no control group."""


async def _run_bomb(name: str, launcher: Starter, *, python: str, uid: int | None) -> _Bombed:
    with contextlib.ExitStack() as stack:
        folder = await asyncio.to_thread(lambda: stack.enter_context(work_folder(launcher.layout.root, uid)))
        size = _BOMB_LIMITS.memory_bytes if name == "memory" else _BOMB_LIMITS.disk_bytes
        spec = Spec(
            argv=[python, "-I", "-S", "-", name, str(size)],
            work_dir=folder,
            uid=uid,
            stdin=_ATTACKER.read_bytes(),
            limits=_BOMB_LIMITS,
        )
        try:
            process = await launcher.start(spec)
            how, output = await _finish(process)
        except SandboxError as error:
            raise SandboxUnavailable(f"the probe could not be run: {error}") from error
        return _Bombed(how, output, process.lacks_group)


async def _run_attacker(launcher: Starter, *, python: str, uid: int | None) -> Probing:
    with contextlib.ExitStack() as stack:
        stage = await asyncio.to_thread(lambda: stack.enter_context(_stage(launcher.layout.root, uid)))
        spec = Spec(
            argv=[python, "-I", "-S", "-", json.dumps(stage.target)],
            work_dir=stage.work_dir,
            uid=uid,
            stdin=_ATTACKER.read_bytes(),
            has_report=True,
            limits=LIMITS,
        )
        try:
            how, output = await run(launcher, spec)
        except SandboxError as error:
            raise SandboxUnavailable(f"the probe could not be run: {error}") from error
        if not how.report:
            raise SandboxUnavailable(f"the probe ended with status {how.code} ({how.reason}): {shown(output)}")
        if not stage.is_lock_free():
            raise SandboxUnavailable("a process that a command left behind was not ended")
        return _judge(json.loads(how.report), how, stage)


async def run(launcher: Starter, spec: Spec) -> tuple[Exit, bytes]:
    """Run a command to its end; the first part of its output, both streams together."""
    return await _finish(await launcher.start(spec))


async def _finish(process: Process) -> tuple[Exit, bytes]:
    try:
        output = bytearray()
        while (chunk := await process.read()) is not None:
            output += chunk[1][: _OUTPUT_BYTES - len(output)]
        return await process.wait(), bytes(output)
    finally:
        await process.kill()


def shown(output: bytes) -> str:
    """Output of a failed command, for a message."""
    return output.decode(errors="replace").strip()[-400:] or "no output"


@contextlib.contextmanager
def work_folder(root: Path, uid: int | None) -> Iterator[Path]:
    """A work_dir for the time of a probe, like a task's: a folder of the uid in one that the uid can only pass."""
    folder = Path(tempfile.mkdtemp(prefix="probe-", dir=root))
    try:
        folder.chmod(0o711)
        _make_folder(folder / "work", uid)
        yield folder / "work"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Stage:
    """What the attacker attacks, and what has become of it."""

    folder: Path
    decoy: "subprocess.Popen[bytes]"
    listeners: dict[str, socket.socket]
    target: dict[str, Any] = field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        return self.folder / "work"

    def visitors(self) -> list[str]:
        """Kinds of the listeners that were reached."""
        return [kind for kind, listener in self.listeners.items() if _was_reached(listener)]

    def is_decoy_alive(self) -> bool:
        return self.decoy.poll() is None

    def is_mode_changed(self) -> bool:
        return (self.folder / "mode").stat().st_mode & 0o777 != _MODE

    def is_lock_free(self) -> bool:
        """The orphan, which held the lock, is gone."""
        fd = os.open(self.work_dir / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


@contextlib.contextmanager
def _stage(root: Path, uid: int | None) -> Iterator[_Stage]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(work_folder(root, uid)).parent
        _make_folder(folder / "other", None if uid is None else uid - 1)
        (folder / "other" / "secret").write_text("secret")
        (folder / "mode").touch(mode=_MODE)
        canary = secrets.token_hex(16)
        program = shutil.which("cat", path="/usr/bin:/bin") or "cat"
        decoy = stack.enter_context(
            subprocess.Popen([program], env={"CANARY": canary}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        )
        stack.callback(decoy.kill)
        abstract = f"beray-{canary[:12]}"
        listeners = {
            "TCP": _listen(stack, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "UDP": _listen(stack, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "abstract unix": _listen(stack, socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}"),
            "unix": _listen_at_path(stack, folder),
        }
        stage = _Stage(folder, decoy, listeners)
        stage.target.update(
            secret=str(folder / "other" / "secret"),
            other=str(folder / "other"),
            folder=str(folder),
            decoy=decoy.pid,
            program=os.path.realpath(program),
            canary=canary,
            tcp=listeners["TCP"].getsockname()[1],
            udp=listeners["UDP"].getsockname()[1],
            abstract=abstract,
            path=str(folder / "socket"),
            mode=str(folder / "mode"),
            forks=_FORKS,
        )
        yield stage


def _make_folder(folder: Path, uid: int | None) -> None:
    folder.mkdir(mode=0o700)
    if uid is not None:
        os.chown(folder, uid, uid)


def _listen(stack: contextlib.ExitStack, family: int, kind: int, address: Any) -> socket.socket:
    listener = stack.enter_context(socket.socket(family, kind))
    listener.bind(address)
    listener.setblocking(False)
    if kind == socket.SOCK_STREAM:
        listener.listen()
    return listener


def _listen_at_path(stack: contextlib.ExitStack, folder: Path) -> socket.socket:
    """The path of a socket is limited to 107 bytes, a folder's is not: bind it through the folder's descriptor."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        listener = _listen(stack, socket.AF_UNIX, socket.SOCK_STREAM, f"/proc/self/fd/{fd}/socket")
    finally:
        os.close(fd)
    (folder / "socket").chmod(0o777)
    return listener


def _was_reached(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(16)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _judge(found: dict[str, Any], how: Exit, stage: _Stage) -> Probing:
    signalled = list(found["signals"]) if not stage.is_decoy_alive() else []
    if how.reason == "lost":
        signalled.append("kill its own supervisor")
    reached = [f"reach {kind} sockets of this machine" for kind in stage.visitors()]
    changed = ["change the mode of the server's files"] if stage.is_mode_changed() else []
    rows = (
        _row("files", found["files"]),
        _row("processes", found["processes"]),
        _row("signals", signalled),
        _row("network", reached),
        _row("metadata", changed),
        _process_row(found["forked"]),
    )
    notes = () if found["can_rename"] else ("files can't be moved from one folder to another on this kernel",)
    return Probing(rows, notes)


def _row(name: Any, done: list[str]) -> Confinement:
    return Confinement(name, not done, f"a command can {', '.join(done)}" if done else "")


def _memory_row(bombed: _Bombed) -> Confinement:
    if bombed.how.reason != "memory":
        return Confinement("memory", False, f"processes can take more memory together than one may ({_ending(bombed)})")
    if bombed.lacks_group is None:
        return Confinement("memory", True)
    note = f"looked at four times a second, since there is no control group: {bombed.lacks_group}"
    return Confinement("memory", True, note)


def _disk_row(bombed: _Bombed) -> Confinement:
    if bombed.how.code == errno.EDQUOT:
        return Confinement("disk", True)
    if bombed.how.reason != "disk":
        return Confinement("disk", False, f"files can hold more together than allowed ({_ending(bombed)})")
    return Confinement("disk", True, "looked at while a command runs; what it writes between two looks is more")


def _ending(bombed: _Bombed) -> str:
    """How it ended instead."""
    if bombed.how.reason == "exit":
        return f"status {bombed.how.code}: {shown(bombed.output)}"
    return bombed.how.reason


def _process_row(forked: int) -> Confinement:
    if forked < LIMITS.processes:
        return Confinement("process_count", True)
    note = "a command's processes are counted together with this machine's others, so the limit is a rough one"
    return Confinement("process_count", False, note)
