"""The fork server: forks a supervisor for each job, and cleans up after one that was killed."""

import fcntl
import gc
import os
import select
import signal
import socket
import time

from .confine import IGNORED_SIGNALS
from .libc import PR_SET_CHILD_SUBREAPER, drop_bounding_set, prctl
from .processes import children_by_parent, kill_descendants
from .seccomp import build_all_filters
from .supervisor import supervise
from .wire import RESERVED_FDS, RUN_BYTES, JobFiles, Message

_FILES_MOST = 7
_DRAIN_SECONDS = 5.0  # a supervisor that has lost the server ends its command in milliseconds
_CLEAN_UP_PAUSE_SECONDS = 0.02


def main(jobs_fd: int) -> None:
    """Serve until the server closes its end of the socket."""
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
    _ForkServer(jobs).run()


def _reserve_descriptors() -> None:
    """Fill the numbers that have a meaning in a command's process, so that nothing we open later lands there."""
    while (fd := os.open("/dev/null", os.O_RDWR)) < RESERVED_FDS:
        pass
    os.close(fd)


class _ForkServer:
    """Who runs, and which control sockets are kept open until the remains of a lost supervisor are gone."""

    def __init__(self, jobs: socket.socket) -> None:
        self._jobs = jobs
        self._control_of: dict[int, int] = {}
        self._lost: list[int] = []
        self._life_line, self._life = os.pipe2(os.O_CLOEXEC)
        self._child_ended, self._wake_up = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_up, warn_on_full_buffer=False)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._jobs, select.POLLIN)
        poll.register(self._child_ended, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(_CLEAN_UP_PAUSE_SECONDS * 1000 if self._lost else None)}
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
            pid = os.fork()
        except OSError as error:
            self._refuse(files, f"no process can be made: {error.strerror}")
            return True
        if pid == 0:
            self._become_supervisor(files)
        self._control_of[pid] = os.dup(files.control)
        files.close()
        return True

    def _refuse(self, files: JobFiles, reason: str) -> None:
        try:
            os.write(files.control, Message("refused", reason=reason).encode())
        except OSError:  # the server has given the job up meanwhile
            pass
        files.close()

    def _become_supervisor(self, files: JobFiles) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for fd in (self._life, self._wake_up, self._child_ended, *self._control_of.values(), *self._lost):
                os.close(fd)
            self._jobs.close()
            supervise(files, self._life_line)
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
            for control in self._lost:
                os.close(control)
            self._lost.clear()

    def _wait_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            control = self._control_of.pop(pid, None)
            if control is None:  # something a lost supervisor left
                continue
            if status == 0:
                os.close(control)
            else:
                self._lost.append(control)

    def _kill_remains(self) -> bool:
        """Kill what has fallen to us; False when there is nothing (more)."""
        mine = children_by_parent().get(os.getpid(), [])
        if all(pid in self._control_of for pid in mine):
            return False
        kill_descendants(spare=self._control_of)
        return True

    def _drain(self) -> None:
        """The server is gone: let the supervisors end their commands, kill what remains, and end."""
        end = time.monotonic() + _DRAIN_SECONDS
        poll = select.poll()
        poll.register(self._child_ended, select.POLLIN)
        while (self._control_of or self._lost) and time.monotonic() < end:
            poll.poll(_CLEAN_UP_PAUSE_SECONDS * 1000)
            self._reap()
        while kill_descendants() and time.monotonic() < end + _DRAIN_SECONDS:
            poll.poll(_CLEAN_UP_PAUSE_SECONDS * 1000)
            self._wait_ended()
