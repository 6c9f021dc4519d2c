"""A command in a container as the server sees it: the engine's client program, and frames over its two pipes."""

import asyncio
import collections
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.base import Exit, InputClosed, SandboxError, StreamName
from beray.server.sandbox.container.engine import engine_environment, shortened
from beray.server.sandbox.container.frames import (
    BEGIN,
    ERR,
    INPUT,
    JOB,
    OUT,
    PIECE_BYTES,
    REPORT,
    ROOM,
    STDIN,
    STOP,
    TOLD,
    WINDOW_BYTES,
    BadFrame,
    FrameReader,
    frame,
    read_room,
    room_frame,
)
from beray.server.sandbox.forkserver import memory_file
from beray.server.sandbox.guard.wire import Message
from beray.server.sandbox.start import Start

LATE_SECONDS = 15.0  # after the wall time process 1 has this long to report, before the command counts as lost
STUCK_SECONDS = 3.0  # a client that has not passed a stop on, and the answer back, by then is killed
KILL_SECONDS = 30.0  # an engine may be slow; don't wait for ever
REMOVE_SECONDS = 20.0  # an engine that does not answer by then is left alone: without its client a container ends
ABANDON_SECONDS = 10.0  # without its standard input a container ends by itself; a client that lives on is killed

# What the client ends with when process 1 got SIGKILL from outside. The kernel takes it, which holds next to nothing,
# when the container is out of memory and the larger ones don't go at once; or somebody uses `kill`, which is rarer.
_KILLED_STATUS = 128 + signal.SIGKILL

_NAMES: dict[bytes, StreamName] = {OUT: "stdout", ERR: "stderr"}
_KINDS: dict[StreamName, bytes] = {"stdout": OUT, "stderr": ERR}
_ERROR_BYTES = 4096


@dataclass(frozen=True)
class Order:
    """What is started.

    Attributes:
        run: Command line of the client.
        remove: Command line that kills and forgets the container, whatever has become of the client.
        job: For process 1.
        stdin: For the command.
        has_input: More is written to the command's descriptor 0 while it runs.
        has_report: The command's descriptor 3 is read.
    """

    run: Sequence[str]
    remove: Sequence[str]
    job: bytes
    stdin: bytes
    has_input: bool
    has_report: bool

    def frames(self) -> bytearray:
        """All that process 1 is told before it starts the command."""
        told = bytearray(frame(JOB, self.job))
        for start in range(0, len(self.stdin), PIECE_BYTES):
            told += frame(STDIN, self.stdin[start : start + PIECE_BYTES])
        if self.has_input:
            told += frame(INPUT)
        if self.has_report:
            told += frame(REPORT)
        return told + frame(BEGIN)


class _Input:
    """How much the command's standard input takes now."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self._room = WINDOW_BYTES
        self._changed = asyncio.Event()

    async def room(self) -> int:
        """How many bytes may be sent, once it is one or more.

        Raises:
            InputClosed: Nothing may be sent any more.
        """
        while self.is_open and self._room <= 0:
            self._changed.clear()
            await self._changed.wait()
        if not self.is_open:
            raise InputClosed("The command's input is closed, or it has ended.")
        return self._room

    def take(self, size: int) -> None:
        """So many are sent."""
        self._room -= size

    def give(self, size: int) -> None:
        """So many have been taken."""
        self._room += size
        self._changed.set()

    def close(self) -> None:
        """Nothing more is sent; a writer that waits is told."""
        self.is_open = False
        self._changed.set()


class Client:
    """A run of the engine's program that is waited for without a task.

    Args:
        command: Its command line.
        on_end: Called once, when it has ended.
        files: Its descriptors 0 to 2.
    """

    def __init__(self, command: Sequence[str], on_end: Callable[[], None], files: tuple[int, int, int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._process = subprocess.Popen(
            command,
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            cwd="/",
            env=engine_environment(),
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.returncode

    def kill(self) -> None:
        """End it now."""
        if self._process.returncode is None:
            self._process.kill()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._on_end()


class ContainerProcess:
    """A command in a container. See the port `Process`.

    Args:
        order: What to start.
        on_gone: Called once, when neither the client nor the container is left.
    """

    def __init__(self, order: Order, on_gone: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.lacks_group: str | None = None
        self._remove = order.remove
        self._on_gone = on_gone
        self._frames = FrameReader(PIECE_BYTES)
        self._pieces: collections.deque[tuple[StreamName, bytes]] = collections.deque()
        self._open_streams = set(_KINDS)
        self._arrived = asyncio.Event()
        self._report = b""
        self._input = _Input(is_open=order.has_input)
        self._was_killed = False
        self._remover: Client | None = None
        self._start = Start()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []
        self._unsent = order.frames()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._errors = memory_file(b"")
            ours.callback(os.close, self._errors)
            source, self._sink = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, source)
            ours.callback(os.close, self._sink)
            self._source, sink = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, sink)
            ours.callback(os.close, self._source)
            self._client = Client(order.run, self._on_client_end, (source, sink, self._errors))
            ours.pop_all()  # they are kept: it has been started
        os.set_blocking(self._sink, False)
        os.set_blocking(self._source, False)
        self._loop.add_reader(self._source, self._on_output)
        self._is_reading = True
        self._send()

    @property
    def client_pid(self) -> int:
        """Process number of the engine's client."""
        return (self._remover or self._client).pid

    async def started(self, *, within_seconds: float, wall_seconds: float) -> None:
        """Wait until the command has been executed.

        Raises:
            SandboxError: It could not be.
        """
        await self._start.wait(within_seconds=within_seconds, give_up=self.abandon)
        self._timers.append(self._loop.call_later(wall_seconds + LATE_SECONDS, self._client.kill))

    async def read(self) -> tuple[StreamName, bytes] | None:
        """See the port."""
        while not self._pieces:
            if not self._open_streams:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        name, piece = self._pieces.popleft()
        joined = bytearray(piece)  # a reader that takes its time gets what has come meanwhile at once
        while self._pieces and self._pieces[0][0] == name and len(joined) + len(self._pieces[0][1]) <= PIECE_BYTES:
            joined += self._pieces.popleft()[1]
        self._tell(room_frame(_KINDS[name], len(joined)))
        return name, bytes(joined)

    async def write(self, data: bytes) -> None:
        """See the port."""
        rest = memoryview(data)
        while rest:
            size = min(await self._input.room(), PIECE_BYTES, len(rest))
            self._input.take(size)
            self._tell(frame(STDIN, bytes(rest[:size])))
            rest = rest[size:]

    async def close_input(self) -> None:
        """See the port."""
        if self._input.is_open:
            self._input.close()
            self._tell(frame(STDIN))

    async def wait(self) -> Exit:
        """See the port."""
        return await asyncio.shield(self._exit)

    async def kill(self) -> None:
        """See the port."""
        if self._exit.done():
            return
        self._tell(frame(STOP))
        self._timers.append(self._loop.call_later(STUCK_SECONDS, self._client.kill))
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await asyncio.shield(self._exit)
        except TimeoutError:
            raise SandboxError(f"The command's container lives on {KILL_SECONDS:g} s after it was killed.") from None

    def abandon(self) -> None:
        """Give up: process 1 sees us gone and ends the container; nobody waits for it."""
        self._close_sink()
        self._timers.append(self._loop.call_later(ABANDON_SECONDS, self._client.kill))

    def _tell(self, message: bytes) -> None:
        if self._sink >= 0:
            self._unsent += message
            self._send()

    def _send(self) -> None:
        """Write what can be written; the rest when there is room."""
        if self._sink < 0:
            return
        try:
            while self._unsent:
                del self._unsent[: os.write(self._sink, self._unsent[:PIECE_BYTES])]
        except BlockingIOError:
            self._loop.add_writer(self._sink, self._send)
            return
        except OSError:  # the client has ended, which is told elsewhere
            self._unsent.clear()
        self._loop.remove_writer(self._sink)

    def _close_sink(self) -> None:
        if self._sink >= 0:
            self._loop.remove_writer(self._sink)
            os.close(self._sink)
            self._sink = -1

    def _on_output(self) -> bool:
        """Take what has come; False when that is nothing."""
        try:
            data = os.read(self._source, PIECE_BYTES)
        except BlockingIOError:
            return False
        try:
            for kind, content in self._frames.feed(data):
                self._on_frame(kind, content)
        except (BadFrame, ValueError, TypeError):  # something else writes there: what comes can't be understood
            self._client.kill()
            data = b""
        if not data:
            self._stop_reading()
        return bool(data)

    def _stop_reading(self) -> None:
        self._is_reading = False
        self._loop.remove_reader(self._source)

    def _on_frame(self, kind: bytes, content: bytes) -> None:
        if kind in _NAMES:
            self._on_piece(_NAMES[kind], content)
        elif kind == ROOM:
            self._input.give(read_room(content)[1])
        elif kind == STDIN:
            self._input.close()
        elif kind == REPORT:
            self._report = content
        elif kind == TOLD:
            self._on_message(Message.decode(content))

    def _on_piece(self, name: StreamName, piece: bytes) -> None:
        """A piece of output; an empty one is the stream's end."""
        if piece:
            self._pieces.append((name, piece))
        else:
            self._open_streams.discard(name)
        self._arrived.set()

    def _on_message(self, message: Message) -> None:
        if message.kind == "started":
            self._start.settle()
        elif message.kind == "refused":
            self._end(Exit(message.code, "exit"), SandboxError(message.reason))
        elif message.kind == "accepted":
            self.lacks_group = message.reason or None
        else:
            self._end(Exit(message.code, message.kind, self._report, message.disk_bytes), None)

    def _on_client_end(self) -> None:
        """The client has gone. Has the container told its end before? Else it is ended now, and counts as lost."""
        while self._is_reading and self._on_output():
            pass
        self._close_sink()
        self._was_killed = self._start.is_settled and self._client.status == _KILLED_STATUS
        if self._exit.done():
            self._finish()
            return
        try:
            with Path(os.devnull).open("r+b", buffering=0) as nowhere:
                self._remover = Client(self._remove, self._lose, (nowhere.fileno(),) * 3)
        except OSError:
            self._lose()
            return
        self._timers.append(self._loop.call_later(REMOVE_SECONDS, self._remover.kill))

    def _lose(self) -> None:
        said = os.pread(self._errors, 1 << 20, 0)[-_ERROR_BYTES:]
        self._end(
            Exit(-signal.SIGKILL, "memory" if self._was_killed else "lost", self._report),
            SandboxError(f"The container was not started: {shortened(said)}."),
        )
        self._finish()

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._stop_reading()
        for fd in (self._source, self._errors):
            os.close(fd)
        self._on_gone()

    def _end(self, how: Exit, start_error: Exception | None) -> None:
        if self._exit.done():
            return
        self._close_sink()  # process 1 waits for that
        self._open_streams.clear()
        self._arrived.set()
        self._input.close()
        self._exit.set_result(how)
        self._start.settle(start_error)
