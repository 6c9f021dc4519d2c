"""Starts servers and commands by forking a process that has imported all they need: a third of a server's start is left
of its processor time, and less of a command's.

What a forked server does is what `beray serve` does from its `main` on; only the imports were there before. How imports
go is tested by what is started as operators start it (`ServerProcess.is_forked`, `CommandLine.is_forked`).

Run as a program it is that process: on standard input it has a socket, by which the tests' process asks for forks.
With the tests' process it ends, and the forks with it.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

BERAY = "beray.cli.main"
MOST_REQUEST_BYTES = 1 << 17
STATUS_BYTES = 4
# Not the commands' own modules: what they show is in the language of the moment they are imported.
NEEDED = (
    *("beray.client", "rich_click", "rich.live", "rich.markdown", "rich.table"),
    *("beray.server.serve", "beray.server.sandbox.choose", "beray.server.agent.models.rules_model"),
    *("beray.server.agent.loop", "beray.server.agent.turn", "beray.server.db.sqlite", "dbos", "dbos._sys_db_sqlite"),
    *("psycopg", "pydantic.v1", "uvicorn.lifespan.off", "uvicorn.loops.uvloop", "uvloop"),
)


@dataclass(frozen=True)
class Work:
    """What a fork is to do: call a module's `main`.

    Attributes:
        arguments: What follows the program's name.
        environment: All its variables.
        cwd: Its folder.
        module: Whose `main` gives the exit status.
        is_strict: Warnings are errors.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    cwd: str = field(default_factory=os.getcwd)
    module: str = BERAY
    is_strict: bool = False


class ForkedProcess:
    """A server as `subprocess.Popen` shows its processes; another process is its parent."""

    def __init__(self, pid: int, *, handle: int, ending: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle = handle  # a pidfd: names no other process, even after the server's end
        self._ending = ending  # a pipe that brings the exit status

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("beray", timeout or 0)
        return status

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._ending], [], [], seconds)[0]:
            told = os.read(self._ending, STATUS_BYTES)
            assert told, "the starter of the servers has died"
            self.returncode = int.from_bytes(told, "big", signed=True)
            os.close(self._ending)
            os.close(self._handle)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)


class Starter:
    """The process that is forked, and the way to it."""

    def __init__(self) -> None:
        self._way, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", "tests.support.starter"], stdin=theirs)
        self._asking = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._way.close()
        self._process.wait()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess:
        """Start `beray` with these arguments; what it says is added to the log."""
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            return self.fork(Work(arguments, environment), (nothing, output, output))

    def run(self, work: Work, *, given: bytes = b"", seconds: float) -> subprocess.CompletedProcess[bytes]:
        """Have this done to its end; `given` is what it reads."""
        with tempfile.TemporaryFile() as read, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            read.write(given)
            read.seek(0)
            process = self.fork(work, (read, said, errors))
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            said.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(work.arguments, status, said.read(), errors.read())

    def fork(self, work: Work, streams: tuple[BinaryIO, BinaryIO, BinaryIO]) -> ForkedProcess:
        """Have this done, with these files as standard input, output and error."""
        given = {"arguments": list(work.arguments), "environment": dict(work.environment)}
        request = json.dumps({**vars(work), **given}).encode()
        ending, theirs = os.pipe()
        with self._asking:
            try:
                socket.send_fds(self._way, [request], [*(stream.fileno() for stream in streams), theirs])
            finally:
                os.close(theirs)
            pid, [handle], _, _ = socket.recv_fds(self._way, 20, 1)
        return ForkedProcess(int(pid), handle=handle, ending=ending)


@functools.cache
def starter() -> Starter:
    """The one of this process, started at first use."""
    return Starter()


class _Forker:
    """What the started process does: forks at each request, and tells how the children ended."""

    def __init__(self, way: socket.socket) -> None:
        self._way = way
        self._endings: dict[int, tuple[int, int]] = {}  # of each child: by its handle, its id and where to tell its end

    def serve(self) -> int:
        """Go on until the tests' process is gone; a child returns from here too, with its exit status."""
        while True:
            ready, _, _ = select.select([self._way, *self._endings], [], [])
            for handle in set(ready) & self._endings.keys():
                self._tell_end(handle)
            if self._way in ready:
                request, descriptors, _, _ = socket.recv_fds(self._way, MOST_REQUEST_BYTES, 4)
                if not request:
                    return self._kill_all()
                pid = os.fork()
                if pid == 0:
                    self._forget()
                    return _run(request, *descriptors)
                self._note(pid, *descriptors)

    def _note(self, pid: int, *descriptors: int) -> None:
        *streams, ending = descriptors
        for stream in streams:
            os.close(stream)
        handle = os.pidfd_open(pid)
        self._endings[handle] = (pid, ending)
        socket.send_fds(self._way, [str(pid).encode()], [handle])

    def _tell_end(self, handle: int) -> None:
        pid, ending = self._endings.pop(handle)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it
            os.write(ending, os.waitstatus_to_exitcode(status).to_bytes(STATUS_BYTES, "big", signed=True))
        os.close(ending)
        os.close(handle)

    def _forget(self) -> None:
        """In the child: let go of what is the others'."""
        self._way.close()
        for handle, (_, ending) in self._endings.items():
            os.close(handle)
            os.close(ending)

    def _kill_all(self) -> int:
        for pid, _ in self._endings.values():
            os.kill(pid, signal.SIGKILL)
        return 0


def _run(request: bytes, *descriptors: int) -> int:
    work = Work(**json.loads(request))
    *streams, ending = descriptors
    os.close(ending)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(work.environment)
    os.chdir(work.cwd)
    _open_streams(is_unbuffered="PYTHONUNBUFFERED" in work.environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if work.is_strict:
        warnings.simplefilter("error")
    sys.argv = [work.module.partition(".")[0], *work.arguments]
    status: int = importlib.import_module(work.module).main()
    return status


def _open_streams(*, is_unbuffered: bool) -> None:
    """As Python does when it starts."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]  # Python's own
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # Python's own
    sys.stdout.reconfigure(write_through=is_unbuffered)  # type: ignore[union-attr]  # Python's own


def _end(status: int) -> NoReturn:
    """As Python ends, but without taking 2,000 modules apart: 0.09 s of a command's 0.14 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that Python waits for
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> int:
    """Import, then fork at request."""
    for name in NEEDED:
        __import__(name)
    assert threading.active_count() == 1, "a fork has no threads but its own"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and, in the same group, for the servers
    gc.freeze()  # a collection in a child would copy every page
    return _Forker(socket.socket(fileno=0)).serve()


if __name__ == "__main__":
    _end(main())
