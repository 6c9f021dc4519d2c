"""The fork server: has a supervisor ready for each job, and cleans up after one that was killed.

Supervisors are forked before there is a job for them: a new one has to be moved into its control group first, for which
the kernel takes longer than for all the rest (`cgroup.py`).
"""

import fcntl
import gc
import os
import select
import signal
import socket
import time
from dataclasses import dataclass

from .cgroup import Cgroups, Group, NoCgroups
from .confine import IGNORED_SIGNALS
from .libc import PR_SET_CHILD_SUBREAPER, drop_bounding_set, prctl
from .processes import children_by_parent, kill_descendants
from .seccomp import build_all_filters
from .supervisor import supervise
from .wire import RESERVED_FDS, RUN_BYTES, JobFiles, Message

_FILES_MOST = 7
_DRAIN_SECONDS = 5.0  # a supervisor that has lost the server ends its command in milliseconds
_PAUSE_SECONDS = 0.02  # between looks at what a lost supervisor has left, and before the reserve is filled
_IN_RESERVE = 2  # supervisors, 2 MB each; more at once are forked when they are needed


def main(jobs_fd: int, server: int, lacks_scope: str) -> None:
    """Serve until the server closes its end of the socket.

    Args:
        jobs_fd: Our end.
        server: Process number of the server.
        lacks_scope: Why we were not started in a scope of systemd, if that was tried.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # whatever the server has inherited
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.chdir("/")
    jobs = socket.socket(fileno=fcntl.fcntl(jobs_fd, fcntl.F_DUPFD_CLOEXEC, RESERVED_FDS))
    os.close(jobs_fd)
    _reserve_descriptors()
    drop_bounding_set()
    build_all_filters(os.uname().machine)
    gc.freeze()  # a forked child's collection would otherwise copy every page
    _ForkServer(jobs, _open_cgroups(server, lacks_scope)).run()


def _reserve_descriptors() -> None:
    """Fill the numbers that have a meaning in a command's process, so that nothing we open later lands there."""
    while (fd := os.open("/dev/null", os.O_RDWR)) < RESERVED_FDS:
        pass
    os.close(fd)


@dataclass(frozen=True)
class _Ready:
    """A supervisor without a job."""

    pid: int
    jobs: socket.socket


@dataclass(frozen=True)
class _Lost:
    """A supervisor that was killed, until its remains are gone.

    Attributes:
        control: Its control socket.
        is_out_of_memory: The kernel has killed in its group for want of memory: a command's processes first, but one
            that takes its time to die does not keep the kernel from killing the supervisor too.
    """

    control: int
    is_out_of_memory: bool

    def tell(self) -> None:
        """Tell the server, which sees the socket close then."""
        if self.is_out_of_memory:
            try:
                os.write(self.control, Message("memory", code=-signal.SIGKILL).encode())
            except OSError:  # the server has given the command up meanwhile
                pass
        os.close(self.control)


class _ForkServer:
    """Who runs, and which control sockets are kept open until the remains of a lost supervisor are gone."""

    def __init__(self, jobs: socket.socket, cgroups: "Cgroups | str") -> None:
        self._jobs = jobs
        self._cgroups = cgroups
        self._reserve: list[_Ready] = []
        self._control_of: dict[int, int] = {}
        self._lost: list[_Lost] = []
        self._group_of: dict[int, Group] = {}
        self._groups_left: list[Group] = []
        self._life_line, self._life = os.pipe2(os.O_CLOEXEC)
        self._child_ended, self._wake_up = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_up, warn_on_full_buffer=False)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._jobs, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        self._fill_reserve()
        while True:
            is_waiting = self._lost or len(self._reserve) < _IN_RESERVE
            ready = {fd for fd, _ in poll.poll(_PAUSE_SECONDS * 1000 if is_waiting else None)}
            if not ready:  # not while a command starts: it wants the processor
                self._fill_reserve()
            self._reap()
            if self._jobs.fileno() in ready and not self._accept():
                return self._drain()

    def _accept(self) -> bool:
        """Start the next job; False when the server has gone."""
        message, fds, _, _ = socket.recv_fds(self._jobs, RUN_BYTES, _FILES_MOST, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return False
        files = JobFiles.received(message, fds)
        if files is None:  # the server sees its control socket close
            return True
        try:
            self._hand_on(files)
        except OSError as error:
            self._refuse(files, f"no process can be made: {error.strerror}")
            return True
        files.close()
        return True

    def _hand_on(self, files: JobFiles) -> None:
        """Give the job to a supervisor of the reserve, or to a new one.

        Raises:
            OSError: No new one can be made.
        """
        while True:
            ready = self._reserve.pop(0) if self._reserve else self._fork()
            with ready.jobs:
                try:
                    socket.send_fds(ready.jobs, [files.message], files.as_list(), socket.MSG_NOSIGNAL)
                except (BrokenPipeError, ConnectionResetError):  # it was killed meanwhile
                    continue
            self._control_of[ready.pid] = os.dup(files.control)
            return

    def _fill_reserve(self) -> None:
        while len(self._reserve) < _IN_RESERVE:
            try:
                self._reserve.append(self._fork())
            except OSError:  # there is none to be had now: the next job tries again, and says why not
                return

    def _fork(self) -> _Ready:
        group = self._make_group()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            self._drop_group(group)
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            self._become_supervisor(theirs, group)
        theirs.close()
        if isinstance(group, Group):
            self._group_of[pid] = group
        return _Ready(pid, ours)

    def _make_group(self) -> "Group | str":
        if isinstance(self._cgroups, str):
            return self._cgroups
        try:
            return self._cgroups.make_group()
        except OSError as error:
            return f"{error.strerror}: {error.filename}"

    def _drop_group(self, group: "Group | str | None") -> None:
        """Remove a group now, or when its last process is gone."""
        if isinstance(group, Group):
            self._groups_left.append(group)
        self._groups_left = [group for group in self._groups_left if not group.remove()]

    def _refuse(self, files: JobFiles, reason: str) -> None:
        try:
            os.write(files.control, Message("refused", reason=reason).encode())
        except OSError:  # the server has given the job up meanwhile
            pass
        files.close()

    def _become_supervisor(self, jobs: socket.socket, group: "Group | str") -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            controls = (*self._control_of.values(), *(lost.control for lost in self._lost))
            for fd in (self._life, self._wake_up, self._child_ended, *controls):
                os.close(fd)
            for ready in self._reserve:
                ready.jobs.close()
            self._jobs.close()
            group = _join(group)
            files = _wait_for_job(jobs)
            if files is not None:
                supervise(files, self._life_line, group)
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Collect what has ended; kill what a lost supervisor left, and tell the server only then."""
        try:
            os.read(self._child_ended, 4096)
        except BlockingIOError:
            pass
        self._wait_ended()
        if self._lost and not self._kill_remains():
            for lost in self._lost:
                lost.tell()
            self._lost.clear()

    def _wait_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            group = self._group_of.pop(pid, None)
            is_out_of_memory = group is not None and status != 0 and group.has_run_out_of_memory()
            self._drop_group(group)
            self._reserve = [ready for ready in self._reserve if ready.pid != pid]
            control = self._control_of.pop(pid, None)
            if control is None:  # one of the reserve, or something a lost supervisor left
                continue
            if status == 0:
                os.close(control)
            else:
                self._lost.append(_Lost(control, is_out_of_memory))

    def _kill_remains(self) -> bool:
        """Kill what has fallen to us; False when there is nothing (more)."""
        mine = children_by_parent().get(os.getpid(), [])
        spare = {*self._control_of, *(ready.pid for ready in self._reserve)}
        if spare.issuperset(mine):
            return False
        kill_descendants(spare=spare)
        return True

    def _drain(self) -> None:
        """The server is gone: let the supervisors end their commands, kill what remains, and end."""
        for ready in self._reserve:
            ready.jobs.close()
        end = time.monotonic() + _DRAIN_SECONDS
        poll = select.poll()
        poll.register(self._child_ended, select.POLLIN)
        while (self._control_of or self._lost) and time.monotonic() < end:
            poll.poll(_PAUSE_SECONDS * 1000)
            self._reap()
        while kill_descendants() and time.monotonic() < end + _DRAIN_SECONDS:
            poll.poll(_PAUSE_SECONDS * 1000)
            self._wait_ended()
        self._drop_group(None)


def _open_cgroups(server: int, lacks_scope: str) -> "Cgroups | str":
    """Where groups can be made; or why not."""
    try:
        return Cgroups(server)
    except NoCgroups as error:
        return f"{error}; {lacks_scope}" if lacks_scope else str(error)


def _join(group: "Group | str") -> "Group | str":
    if isinstance(group, str):
        return group
    try:
        group.join()
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return group


def _wait_for_job(jobs: socket.socket) -> JobFiles | None:
    """The job, when it comes; None when the fork server has none for us any more."""
    with jobs:
        message, fds, _, _ = socket.recv_fds(jobs, RUN_BYTES, _FILES_MOST, socket.MSG_CMSG_CLOEXEC)
    return JobFiles.received(message, fds) if message else None
