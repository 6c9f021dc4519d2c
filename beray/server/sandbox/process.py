"""A running command as the server sees it: two pipes to read, perhaps one to write, a control socket, and how it
ended.
"""

import asyncio
import contextlib
import os
import signal
import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from beray.server.sandbox.base import Exit, InputClosed, SandboxError, StreamName
from beray.server.sandbox.guard.wire import MESSAGE_BYTES, STOP, Message
from beray.server.sandbox.input import InputPipe
from beray.server.sandbox.start import Start

READ_BYTES = 64 * 1024
REPORT_BYTES = 64 * 1024
LATE_SECONDS = 15.0  # after the wall time the supervisor has this long to report, before the command counts as lost
STUCK_SECONDS = 2.0  # a supervisor that has not ended its command by then is killed itself
KILL_SECONDS = 10.0  # a process in an uninterruptible system call may outlive SIGKILL; don't wait for ever


@dataclass(frozen=True)
class OurEnds:
    """The server's ends of a command's pipes.

    Attributes:
        report: Reads its descriptor 3, if it has one.
        input: Writes its descriptor 0, if that is a pipe.
    """

    stdout: int
    stderr: int
    report: int | None = None
    input: int | None = None


class _Pipes:
    """Our ends, closed at the latest when the process object is dropped."""

    def __init__(self, ends: OurEnds) -> None:
        self.outputs: dict[StreamName, int] = {"stdout": ends.stdout, "stderr": ends.stderr}
        self.report = ends.report
        self.input = None if ends.input is None else InputPipe(ends.input)

    def close_output(self, name: StreamName) -> None:
        os.close(self.outputs.pop(name))

    def close_report(self) -> None:
        if self.report is not None:
            os.close(self.report)
            self.report = None

    def close_input(self) -> None:
        if self.input is not None:
            self.input.close()

    def close(self) -> None:
        for name in list(self.outputs):
            self.close_output(name)
        self.close_report()
        self.close_input()


class GuardedProcess:
    """A command with a supervisor. See the port `Process`."""

    def __init__(self, control: socket.socket, ends: OurEnds) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._pipes = _Pipes(ends)
        self._close_pipes = weakref.finalize(self, self._pipes.close)
        self._report = bytearray()
        self._start = Start()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._too_late: asyncio.TimerHandle | None = None
        self.supervisor_pid: int | None = None
        """Its process number, once it has the job."""
        self.lacks_group: str | None = None
        """Why it has no control group, if it has none."""
        self._turn: StreamName = "stdout"
        for fd in (ends.stdout, ends.stderr, ends.report, control.fileno()):
            if fd is not None:
                os.set_blocking(fd, False)
        self._loop.add_reader(control, self._on_message)
        if ends.report is not None:
            self._loop.add_reader(ends.report, self._on_report)

    async def started(self, *, within_seconds: float, wall_seconds: float) -> None:
        """Wait until the command has been executed.

        Raises:
            SandboxError: It could not be.
            ConnectionResetError: Nobody has taken the job, so that it may be given again.
        """
        self._too_late = self._loop.call_later(wall_seconds + LATE_SECONDS, self._lose)
        await self._start.wait(within_seconds=within_seconds, give_up=self.abandon)

    async def read(self) -> tuple[StreamName, bytes] | None:
        """See the port."""
        while self._pipes.outputs:
            for name in self._order():
                try:
                    chunk = os.read(self._pipes.outputs[name], READ_BYTES)
                except BlockingIOError:
                    continue
                if chunk:
                    self._turn = "stderr" if name == "stdout" else "stdout"
                    return name, chunk
                self._pipes.close_output(name)
            if self._pipes.outputs:
                await self._readable()
        return None

    async def write(self, data: bytes) -> None:
        """See the port."""
        if self._pipes.input is None:
            raise InputClosed("The command was started without an input that can be written.")
        await self._pipes.input.write(data)

    async def close_input(self) -> None:
        """See the port."""
        self._pipes.close_input()

    async def wait(self) -> Exit:
        """See the port."""
        return await asyncio.shield(self._exit)

    def when_ended(self, act: Callable[[], None]) -> None:
        """Call `act` once when it has ended, or nobody waits for it any more."""
        self._exit.add_done_callback(lambda _: act())

    async def kill(self) -> None:
        """See the port."""
        if self._exit.done():
            return
        with contextlib.suppress(OSError):  # full of stops already, or its supervisor is gone
            self._control.send(STOP, socket.MSG_NOSIGNAL)
        stuck = self._loop.call_later(STUCK_SECONDS, self._kill_supervisor)
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await asyncio.shield(self._exit)
        except TimeoutError:
            self.abandon()
            raise SandboxError(f"The command's processes live on {KILL_SECONDS:g} s after SIGKILL.") from None
        finally:
            stuck.cancel()

    def _kill_supervisor(self) -> None:
        """Its number is its own as long as it has not reported; the fork server then does its work."""
        if self.supervisor_pid is not None and not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.supervisor_pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Give up: the supervisor sees us gone and ends the command; nothing waits for it any more."""
        self._lose()
        self._close_pipes()

    def _order(self) -> list[StreamName]:
        """The open streams, the one whose turn it is first: a loud one can't starve the other."""
        return sorted(self._pipes.outputs, key=lambda name: name != self._turn)

    async def _readable(self) -> None:
        ready = asyncio.Event()
        fds = list(self._pipes.outputs.values())
        for fd in fds:
            self._loop.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            for fd in fds:
                self._loop.remove_reader(fd)

    def _on_message(self) -> None:
        try:
            raw = self._receive()
        except BlockingIOError:
            return
        if not raw:
            self._lose()
            return
        message = Message.decode(raw)
        if message.kind == "accepted":
            self.supervisor_pid = message.code
            self.lacks_group = message.reason or None
        elif message.kind == "started":
            self._start.settle()
        elif message.kind == "refused":
            self._end(Exit(message.code, "exit"), SandboxError(message.reason))
        else:
            self._end(Exit(message.code, message.kind, self._whole_report(), message.disk_bytes), None)

    def _receive(self) -> bytes:
        """The next message; empty when there will be none."""
        try:
            return self._control.recv(MESSAGE_BYTES)
        except ConnectionResetError:  # the supervisor ended with a stop of ours unread: told before its last message
            return self._control.recv(MESSAGE_BYTES)

    def _on_report(self) -> None:
        """Keep the first part of the report and drop the rest, so that the writer never blocks."""
        assert self._pipes.report is not None
        try:
            chunk = os.read(self._pipes.report, READ_BYTES)
        except BlockingIOError:
            return
        self._report += chunk[: REPORT_BYTES - len(self._report)]
        if not chunk:
            self._loop.remove_reader(self._pipes.report)
            self._pipes.close_report()

    def _whole_report(self) -> bytes:
        """What is left in the pipe belongs to the report too; its writers are dead."""
        for _ in range(2 + (1 << 20) // READ_BYTES):  # a pipe holds 1 MiB at most
            if self._pipes.report is None:
                break
            self._on_report()
        return bytes(self._report)

    def _lose(self) -> None:
        start_error: Exception = ConnectionResetError("the fork server is gone")
        if self.supervisor_pid is not None:
            start_error = SandboxError("The command's supervisor was killed while it started.")
        self._end(Exit(-signal.SIGKILL, "lost", bytes(self._report)), start_error)

    def _end(self, how: Exit, start_error: Exception | None) -> None:
        if self._exit.done():
            return
        if self._too_late is not None:
            self._too_late.cancel()
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._pipes.report is not None:
            self._loop.remove_reader(self._pipes.report)
            self._pipes.close_report()
        self._pipes.close_input()
        self._exit.set_result(how)
        self._start.settle(start_error)
