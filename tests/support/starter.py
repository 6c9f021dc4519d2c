"""Starts servers by forking a process that has imported all they need: a third of a start's processor time is left.

What a forked server does is what `beray serve` does from its `main` on; only the imports were there before. How imports
go is tested by servers that are started as operators start them (`ServerProcess.is_forked`).

Run as a program it is that process: on standard input it has a socket, by which the tests' process asks for servers.
With the tests' process it ends, and the servers with it.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

MOST_REQUEST_BYTES = 1 << 17
STATUS_BYTES = 4
NEEDED = (
    *("beray.cli.main", "beray.cli.root", "beray.cli.serve", "beray.server.serve", "beray.server.sandbox.choose"),
    *("beray.server.agent.loop", "beray.server.agent.turn", "beray.server.agent.models.rules_model"),
    *("beray.server.db.sqlite", "dbos", "dbos._sys_db_sqlite", "psycopg"),
    *("pydantic.v1", "uvicorn.lifespan.off", "uvicorn.loops.uvloop", "uvloop"),  # FastAPI asks the first of each route
)


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
        request = json.dumps([list(arguments), dict(environment), str(Path.cwd())]).encode()
        ending, theirs = os.pipe()
        with log.open("ab") as output, self._asking:
            try:
                socket.send_fds(self._way, [request], [output.fileno(), theirs])
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
                request, descriptors, _, _ = socket.recv_fds(self._way, MOST_REQUEST_BYTES, 2)
                if not request:
                    return self._kill_all()
                pid = os.fork()
                if pid == 0:
                    self._forget()
                    return _run(request, *descriptors)
                self._note(pid, *descriptors)

    def _note(self, pid: int, output: int, ending: int) -> None:
        os.close(output)
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


def _run(request: bytes, output: int, ending: int) -> int:
    arguments, environment, folder = json.loads(request)
    os.close(ending)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]  # Python's own stream
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["beray", *arguments]
    from beray.cli.main import main

    return main()


def main() -> int:
    """Import, then fork at request."""
    for name in NEEDED:
        __import__(name)
    assert threading.active_count() == 1, "a fork has no threads but its own"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and, in the same group, for the servers
    gc.freeze()  # a collection in a child would copy every page
    return _Forker(socket.socket(fileno=0)).serve()


if __name__ == "__main__":
    sys.exit(main())
