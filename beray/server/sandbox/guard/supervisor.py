"""One command's supervisor: starts it, waits, and leaves no process behind.

How everything is killed without a PID namespace: a process in a Landlock domain with signal scope may call kill(-1,
SIGKILL), and the kernel delivers it inside the domain only, in one pass that no fork can outrun. The payload sits in
a nested domain, so it can't signal us. The scope is proven before (our parent must be out of reach), never assumed.
Where it can't be had, descendants are looked up in /proc until none is left; being the subreaper, we get every
orphan.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import landlock
from .cgroup import Group
from .children import Children, kill_everybody, read_refusal
from .confine import become_command
from .disk import DiskLimits, DiskWatch
from .home import make_home
from .libc import PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, prctl
from .memory import GroupMemory, WatchedMemory
from .processes import kill_descendants
from .wire import Job, JobFiles, Message, MessageKind


def supervise(files: JobFiles, life_line: int, group: "Group | str") -> None:
    """Run the job to its end and report it over the control socket. Ends with no process left below us.

    Args:
        files: The job and its descriptors; closed here.
        life_line: Its end of file means that the fork server is gone.
        group: The control group this process is in, as the only one; or why it has none.
    """
    control = socket.socket(fileno=os.dup(files.control))
    _send(control, Message("accepted", code=os.getpid(), reason=group if isinstance(group, str) else ""))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()
    job = _read_job(files.job)
    try:
        make_home(job.home, job.uid)
        if isinstance(group, Group):
            group.limit(memory_bytes=job.limits.memory_bytes, processes=job.limits.processes + _own_processes(job))
            job = _without_count_by_uid(job)
    except OSError as error:
        _send(control, Message("refused", reason=f"{error.strerror}: {error.filename}"))
        return
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    kill_all = kill_everybody if _enter_signal_scope(job) else kill_descendants  # out of a domain no signal goes
    memory = (
        GroupMemory(group, job.limits.memory_bytes)
        if isinstance(group, Group)
        else WatchedMemory(job.limits.memory_bytes)
    )
    _Supervisor(job, _Lines(control, life_line), kill_all, memory).run(files)


def _read_job(fd: int) -> Job:
    size = os.fstat(fd).st_size
    return Job.decode(os.pread(fd, size, 0))


def _own_processes(job: Job) -> int:
    """How many processes the group holds beside the command: this one, and those bubblewrap needs for itself."""
    return 1 if job.bubblewrap is None else 4


def _without_count_by_uid(job: Job) -> Job:
    """The group counts a command's processes; a limit of its user would count other commands' too."""
    return replace(job, limits=replace(job.limits, counted_processes=None))


def _enter_signal_scope(job: Job) -> bool:
    """Shut this process into a domain out of which no signal goes; True if that is proven."""
    if not job.scopes_signals:
        return False
    # With a further layer below it, a layer denies REFER (rename across folders) unless it handles and grants it. Where
    # there is none it must handle nothing about files: bubblewrap could not mount.
    files = 0 if job.landlock is None else landlock.REFER
    try:
        rules = landlock.Ruleset(files=files, scope=landlock.SCOPE_SIGNAL)
        rules.allow(["/"] if files else [], landlock.REFER)
        rules.restrict_self()
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class _Lines:
    """What a supervisor listens to: the server, and that the fork server lives."""

    control: socket.socket
    life_line: int


class _Supervisor:
    """The state of one supervised command."""

    def __init__(
        self, job: Job, lines: _Lines, kill_all: Callable[[], object], memory: "GroupMemory | WatchedMemory"
    ) -> None:
        self._job = job
        self._control = lines.control
        self._life_line = lines.life_line
        self._kill_all = kill_all
        self._memory = memory
        self._disk = _disk_watch(job)
        self._deadline = time.monotonic() + job.limits.wall_seconds
        self._children = Children()
        self._refusal = b""

    def run(self, files: JobFiles) -> None:
        try:
            setup = self._children.start(lambda: become_command(self._job, files))
        except OSError as error:
            _send(self._control, Message("refused", reason=f"no process can be made: {error.strerror}"))
            return
        files.close()
        kind = self._watch(setup)
        self._children.end_all(self._kill_all)
        if self._refusal:
            _send(self._control, Message("refused", reason=self._refusal.decode(errors="replace")))
        else:
            is_awaited = kind in ("stopped", "lost")  # a large tree takes seconds to walk
            disk_bytes = None if is_awaited else self._disk.measure()
            _send(self._control, Message(kind, code=self._exit_code(), disk_bytes=disk_bytes))

    def _watch(self, setup: int) -> MessageKind:
        """Wait for the first thing that ends the command."""
        poll = select.poll()
        for fd in (setup, self._children.ended, self._control.fileno(), self._life_line):
            poll.register(fd, select.POLLIN)
        while True:
            left = self._deadline - time.monotonic()
            pause = min(self._disk.pause_seconds, max(0, left))
            ready = {fd for fd, _ in poll.poll(pause * 1000)}
            if setup in ready:
                poll.unregister(setup)
                self._refusal = read_refusal(setup)
                if not self._refusal:
                    _send(self._control, Message("started"))
            if self._control.fileno() in ready:
                return "stopped"
            if self._life_line in ready:
                return "lost"
            if self._children.ended in ready:
                self._children.reap()
                if self._children.status is not None:
                    self._read_late(poll, setup)
                    return "memory" if self._memory.is_over() else "exit"
            if left <= 0:
                return "timeout"
            if self._memory.is_over():
                return "memory"
            if self._disk.is_over():
                return "disk"

    def _read_late(self, poll: "select.poll", setup: int) -> None:
        """The command ended before we have looked at how it started."""
        try:
            poll.unregister(setup)
        except KeyError:
            return
        self._refusal = read_refusal(setup)
        if not self._refusal:
            _send(self._control, Message("started"))

    def _exit_code(self) -> int:
        code = self._children.exit_code
        if self._job.bubblewrap is not None and 128 < code <= 128 + signal.NSIG - 1:
            return 128 - code  # bubblewrap tells a signal as a shell does
        return code


def _disk_watch(job: Job) -> DiskWatch:
    limits = job.limits
    folders = (job.work_dir, job.home)
    return DiskWatch(folders, DiskLimits(limits.disk_bytes, limits.disk_before, limits.free_bytes))


def _send(control: socket.socket, message: Message) -> None:
    try:
        control.send(message.encode(), socket.MSG_NOSIGNAL)
    except OSError:  # the server is gone; nobody is left to tell
        pass
