"""The server's hold on the fork server (`guard/`): starts it, hands it jobs, starts it anew when it has died."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from beray.server.sandbox.base import SandboxError
from beray.server.sandbox.guard.wire import JobFiles
from beray.server.sandbox.scope import Scope, find_scope

SEND_SECONDS = 10.0  # the fork server takes a job in well under a millisecond
CLOSE_SECONDS = 10.0

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from guard.forkserver import main;"
    " main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)


class ForkServer:
    """One fork server, shared by all commands of a backend. Used from one event loop."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Its process number, when it runs."""
        return None if self._process is None else self._process.pid

    async def send(self, files: JobFiles) -> None:
        """Hand over a job; its descriptors stay the caller's to close.

        Raises:
            SandboxError: No fork server could be had.
        """
        async with self._lock:
            if self._socket is None:
                await self._start()
            try:
                await self._send(files)
            except (BrokenPipeError, ConnectionResetError):  # it was killed; commands it watched end by themselves
                await self._discard()
                await self._start()
                await self._send(files)

    async def close(self) -> None:
        """End it. Commands that still run are ended by their supervisors."""
        async with self._lock:
            self._is_closed = True
            await self._discard()

    async def _send(self, files: JobFiles) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SEND_SECONDS):
            while True:
                try:
                    socket.send_fds(self._socket, [files.message], files.as_list(), socket.MSG_NOSIGNAL)
                    return
                except BlockingIOError:  # its queue is full
                    await _writable(loop, self._socket)

    async def _start(self) -> None:
        """Systemd is asked each time anew. The start itself blocks for a vfork: nothing to be cancelled half way."""
        if self._is_closed:
            raise SandboxError("The sandbox is closed.")
        scope = await asyncio.to_thread(find_scope)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            try:
                self._process = _spawn(theirs.fileno(), scope)
            except OSError as error:
                ours.close()
                raise SandboxError(f"The sandbox's fork server could not be started: {error}") from error
        self._socket = ours

    async def _discard(self) -> None:
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is not None:
            await asyncio.to_thread(_wait_or_kill, process)


def _spawn(fd: int, scope: Scope) -> "subprocess.Popen[bytes]":
    folder = str(Path(__file__).parent)
    boot = [sys.executable, "-I", "-S", "-c", _BOOT, folder, str(fd), str(os.getpid()), scope.lacks]
    command, env = scope.start(boot, _library_environment())
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd],
        start_new_session=True,
    )


def _library_environment() -> dict[str, str]:
    """Nothing, but where our own interpreter's shared library is found."""
    folder = Path(sys.base_prefix) / "lib"
    return {"LD_LIBRARY_PATH": str(folder)} if any(folder.glob("libpython3.*.so*")) else {}


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _writable(loop: asyncio.AbstractEventLoop, target: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_writer(target, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(target)


def memory_file(content: bytes) -> int:
    """A descriptor from which `content` is read."""
    fd = os.memfd_create("beray", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
