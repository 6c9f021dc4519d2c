"""Process 1 of a command's container: starts the command, passes its streams on and leaves nothing behind.

It runs in the container, by the image's python without packages, under the command's uid. It is out of the command's
reach all the same: the kernel gives process 1 only signals it handles, and being not dumpable it can't be looked into
or traced. When it ends, for whatever reason, the kernel kills all that is in the container.
"""

import fcntl
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import NoReturn

from ..guard.children import Children, kill_everybody, read_refusal
from ..guard.confine import IGNORED_SIGNALS, become_command
from ..guard.disk import DiskLimits, DiskWatch
from ..guard.libc import PR_SET_NO_NEW_PRIVS, install_seccomp, prctl
from ..guard.memory import WatchedMemory
from ..guard.seccomp import FilterRules, build_filter
from ..guard.wire import Job, JobFiles, Message, MessageKind
from .frames import (
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
    FrameReader,
    frame,
    read_room,
    room_frame,
)

_PR_SET_DUMPABLE = 4
_LOWEST_FD = 10  # ours lie above those that mean something to a command
_JOB_BYTES = 64 << 20  # the kernel takes 2 MiB of arguments; JSON may need six characters for one
_ORDER_SECONDS = 60.0
_LAST_WORDS_SECONDS = 10.0
_CONTROL_GROUPS = (  # of version 2 and 1, as engines show them: the limit, and how often it was reached
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.events"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.oom_control"),
)
_NO_LIMIT = 1 << 60  # version 1 tells the largest number it knows, which is somewhat more


def main() -> NoReturn:
    """Carry out the one job that is given, and end."""
    prctl(_PR_SET_DUMPABLE, 0)
    for number in IGNORED_SIGNALS:  # python handles SIGINT, hence the command could send us that
        signal.signal(number, signal.SIG_IGN)
    link = _Link(*_move_descriptors())
    if os.getpid() == 1:
        _Command(link, _take_order(link)).run()
    else:
        link.tell(Message("refused", reason="the engine puts a process of its own before ours (its option --init)"))
    link.say_last_words()
    os._exit(0)


def _move_descriptors() -> tuple[int, int]:
    """Standard input and output, moved to where no command's descriptors are; 0, 1 and 3 become /dev/null."""
    source, sink = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD) for fd in (0, 1))
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 3):
        os.dup2(nothing, fd)
    return source, sink


@dataclass(frozen=True)
class _Order:
    """What is to be started.

    Attributes:
        job: The command.
        stdin: A descriptor with what it reads from descriptor 0.
        input: Writes to `stdin`, if that is a pipe; else -1.
        has_report: Its descriptor 3 is a pipe to us.
    """

    job: Job
    stdin: int
    input: int
    has_report: bool


def _take_order(link: "_Link") -> _Order:
    job: Job | None = None
    has_input = has_report = False
    stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
    poll = select.poll()
    poll.register(link.source, select.POLLIN)
    while True:
        if not poll.poll(_ORDER_SECONDS * 1000):
            os._exit(1)
        for kind, content in link.receive():
            if kind == JOB:
                job = Job.decode(content)
            elif kind == STDIN:
                os.write(stdin, content)
            elif kind == INPUT:
                has_input = True
            elif kind == REPORT:
                has_report = True
            elif kind == BEGIN:
                assert job is not None
                os.lseek(stdin, 0, os.SEEK_SET)
                reader, writer = os.pipe2(os.O_CLOEXEC) if has_input else (_stdin_file(stdin), -1)
                return _Order(job, reader, writer, has_report)


def _stdin_file(filled: int) -> int:
    """What was sent, or /dev/null when that was nothing."""
    if os.fstat(filled).st_size:
        return filled
    return fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)


class _Link:
    """Frames to and from the server. Never waits: what can't be written yet is kept, which `ROOM` bounds."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self._frames = FrameReader(_JOB_BYTES)
        self._unsent = bytearray()
        os.set_blocking(source, False)
        os.set_blocking(sink, False)

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[tuple[bytes, bytes]]:
        """What the server has sent. Ends this process, and so the container, when the server is gone."""
        try:
            data = os.read(self.source, PIECE_BYTES)
        except BlockingIOError:
            return []
        if not data:
            os._exit(1)
        return list(self._frames.feed(data))

    def send(self, kind: bytes, content: bytes = b"") -> None:
        self._unsent += frame(kind, content)
        self.flush()

    def give_room(self, size: int) -> None:
        """So many bytes of standard input have been taken."""
        self._unsent += room_frame(STDIN, size)
        self.flush()

    def tell(self, message: Message) -> None:
        self.send(TOLD, message.encode())

    def flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self.sink, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # nobody listens any more, and that soon shows at the other descriptor
            self._unsent.clear()

    def say_last_words(self) -> None:
        """Send what is left and wait until the server hangs up: engines lose output of a container that has ended."""
        end = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < end:
            poll = select.poll()
            poll.register(self.source, select.POLLIN)
            if self._unsent:
                poll.register(self.sink, select.POLLOUT)
            poll.poll(1000)
            self.flush()
            self.receive()


@dataclass
class _Stream:
    """One output of the command.

    Attributes:
        kind: Its kind of frame.
        fd: Reading end of its pipe.
        room: How many bytes the server can take.
    """

    kind: bytes
    fd: int
    room: int = WINDOW_BYTES
    is_open: bool = True

    def pass_on(self, link: _Link, most: int) -> bool:
        """Send the next piece; False when there is none now."""
        try:
            piece = os.read(self.fd, min(most, PIECE_BYTES))
        except BlockingIOError:
            return False
        self.room -= len(piece)
        self.is_open = bool(piece)
        link.send(self.kind, piece)  # an empty piece tells the end
        return self.is_open


class _Input:
    """The command's descriptor 0, where that is a pipe. What it does not take yet is kept, which `ROOM` bounds."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._unwritten = bytearray()
        self._is_ending = False
        if fd >= 0:
            os.set_blocking(fd, False)

    @property
    def has_unwritten(self) -> bool:
        return bool(self._unwritten)

    def add(self, piece: bytes) -> None:
        """A piece from the server; an empty one is its end."""
        if self.fd >= 0:
            self._unwritten += piece
            self._is_ending = not piece

    def pass_on(self, link: _Link) -> None:
        """Write what the command takes now, and tell the server how much that is, or that nobody reads any more."""
        if self.fd < 0:
            return
        try:
            while self._unwritten:
                size = os.write(self.fd, self._unwritten)
                del self._unwritten[:size]
                link.give_room(size)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._is_ending = True
            self._unwritten.clear()
            link.send(STDIN)
        if self._is_ending:
            os.close(self.fd)
            self.fd = -1


class _Report:
    """The command's descriptor 3: its first part is kept and the rest dropped, so that the writer never blocks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_open = True
        self.content = b""

    def read_on(self) -> bool:
        """False when there is nothing now."""
        try:
            piece = os.read(self.fd, PIECE_BYTES)
        except BlockingIOError:
            return False
        self.content += piece[: PIECE_BYTES - len(self.content)]
        self.is_open = bool(piece)
        return self.is_open


class _Command:
    """The state of the command."""

    def __init__(self, link: _Link, order: _Order) -> None:
        self._link = link
        self._order = order
        self._input = _Input(order.input)
        self._children = Children()
        self._refusal: bytes | None = None
        self._wants_stop = False
        limits = order.job.limits
        self._memory = _memory_watch(limits.memory_bytes)
        folders = (order.job.work_dir, order.job.home)
        self._disk = DiskWatch(folders, DiskLimits(limits.disk_bytes, limits.disk_before, limits.free_bytes))

    def run(self) -> None:
        """From the start to the message how it ended, with no process left."""
        lacks_group = "" if isinstance(self._memory, _GroupMemory) else "the engine gives its containers none"
        self._link.tell(Message("accepted", reason=lacks_group))
        try:
            self._start()
        except OSError as error:
            self._link.tell(Message("refused", reason=f"no process can be made: {error.strerror}"))
            return
        kind = self._watch()
        self._children.end_all(kill_everybody)  # they have our uid, and orphans become our children
        self._hear_setup()
        if self._refusal:
            self._link.tell(Message("refused", reason=self._refusal.decode(errors="replace")))
            return
        for stream in self._streams:
            while stream.is_open and stream.pass_on(self._link, PIECE_BYTES):
                pass
        while self._report.is_open and self._report.read_on():
            pass
        self._link.send(REPORT, self._report.content)
        disk_bytes = None if kind == "stopped" else self._disk.measure()  # a large tree takes seconds to walk
        self._link.tell(Message(kind, code=self._children.exit_code, disk_bytes=disk_bytes))

    def _start(self) -> None:
        out, out_end = _pipe()
        err, err_end = _pipe()
        report, report_end = _pipe()
        order = self._order
        none = -1  # the job itself and the control socket, which a supervisor has
        files = JobFiles(none, none, order.stdin, out_end, err_end, report_end if order.has_report else None)
        self._deadline = time.monotonic() + order.job.limits.wall_seconds
        self._setup = self._children.start(lambda: _become(order.job, files))
        os.set_blocking(self._setup, False)
        for fd in (order.stdin, out_end, err_end, report_end):
            os.close(fd)
        self._streams = (_Stream(OUT, out), _Stream(ERR, err))
        self._report = _Report(report)

    def _watch(self) -> MessageKind:
        """Wait for the first thing that ends the command."""
        while True:
            self._wait()
            self._hear_setup()
            self._hear_server()
            self._input.pass_on(self._link)
            for stream in self._streams:
                if stream.is_open and stream.room > 0:
                    stream.pass_on(self._link, stream.room)
            if self._report.is_open:
                self._report.read_on()
            self._children.reap()
            if self._wants_stop:
                return "stopped"
            if self._memory.is_over():
                return "memory"
            if self._children.status is not None:
                return "exit"
            if time.monotonic() >= self._deadline:
                return "timeout"
            if self._disk.is_over():
                return "disk"

    def _wait(self) -> None:
        """Until something can be done."""
        poll = select.poll()
        for fd in (self._link.source, self._children.ended):
            poll.register(fd, select.POLLIN)
        if self._refusal is None:
            poll.register(self._setup, select.POLLIN)
        if self._link.has_unsent:
            poll.register(self._link.sink, select.POLLOUT)
        for stream in self._streams:
            if stream.is_open and stream.room > 0:
                poll.register(stream.fd, select.POLLIN)
        if self._input.has_unwritten:
            poll.register(self._input.fd, select.POLLOUT)
        if self._report.is_open:
            poll.register(self._report.fd, select.POLLIN)
        left = min(self._deadline - time.monotonic(), self._disk.pause_seconds)
        poll.poll(max(0, left) * 1000)

    def _hear_setup(self) -> None:
        """Whether the command was executed; the pipe's end of file says that it was."""
        if self._refusal is not None:
            return
        try:
            self._refusal = read_refusal(self._setup)
        except BlockingIOError:
            return
        if not self._refusal:
            self._link.tell(Message("started"))

    def _hear_server(self) -> None:
        self._link.flush()
        for kind, content in self._link.receive():
            if kind == STOP:
                self._wants_stop = True
            elif kind == STDIN:
                self._input.add(content)
            elif kind == ROOM:
                name, size = read_room(content)
                stream = next(stream for stream in self._streams if stream.kind == name)
                stream.room += size


class _GroupMemory:
    """Asks the kernel about this container's control group, and looks as well.

    The kernel, short of memory in here, first takes back what can be read again from the image, over and over, which on
    a busy machine goes on for long before it kills.

    Args:
        events: The group's file that counts the killed.
        most: Bytes all processes may have together; the group's own limit leaves room for this one.
    """

    def __init__(self, events: str, most: int) -> None:
        self._events = events
        self._watched = WatchedMemory(most)

    def is_over(self) -> bool:
        """A process in here has been killed for want of memory, or they have more than they may."""
        with open(self._events) as file:
            counts = dict(line.split() for line in file if line.count(" ") == 1)
        return int(counts["oom_kill"]) > 0 or self._watched.is_over()


def _memory_watch(most: int) -> "_GroupMemory | WatchedMemory":
    """By the kernel if the engine has set its limit; what there is without one is the whole machine's."""
    for limit, events in _CONTROL_GROUPS:
        try:
            with open(limit) as file:
                told = file.read().strip()
        except OSError:
            continue
        if told.isdigit() and int(told) < _NO_LIMIT and os.access(events, os.R_OK):
            return _GroupMemory(events, most)
    return WatchedMemory(most)


def _pipe() -> tuple[int, int]:
    """Reading and writing end; reading never waits."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return reader, writer


def _become(job: Job, files: JobFiles) -> None:
    """In the forked process: become the command."""
    prctl(_PR_SET_DUMPABLE, 1)  # the command's own process is its own to look at
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules = FilterRules(has_sockets=True, sees_others=False)
    install_seccomp(build_filter(os.uname().machine, rules))
    become_command(job, files)
