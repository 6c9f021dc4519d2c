"""The children of a process that starts one command and leaves none behind, the command's orphans among them."""

import os
import select
import signal
from collections.abc import Callable

from .confine import CannotRun
from .wire import MESSAGE_BYTES

_WAIT_ALL = 0x40000000  # __WALL: children of every kind, however they were cloned
_PAUSE_SECONDS = 0.02  # between two passes of killing, while the killed ones die
_REFUSAL_BYTES = MESSAGE_BYTES // 8  # JSON may need six characters for one


class Children:
    """Starts the command, and tells when a child ends and how the command did.

    Attributes:
        ended: A descriptor, readable when a child has ended since the last `reap`.
        status: The command's wait status; None while it runs.
    """

    def __init__(self) -> None:
        self._command = 0
        self.status: int | None = None
        self.ended, wake_up = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)

    def start(self, become: Callable[[], object]) -> int:
        """Fork the command.

        Args:
            become: Executes it in the new process, or raises why it can't be.

        Returns:
            The reading end of a pipe, for `read_refusal`.

        Raises:
            OSError: No process can be made.
        """
        setup, tell = os.pipe2(os.O_CLOEXEC)
        self._command = os.fork()
        if self._command == 0:
            _run(become, tell)
        os.close(tell)
        return setup

    def reap(self) -> bool:
        """Collect every child that has ended; False when there is none left, ended or not."""
        try:
            os.read(self.ended, 4096)
        except BlockingIOError:
            pass
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | _WAIT_ALL)
                if pid == 0:
                    return True
                if pid == self._command:
                    self.status = status
        except ChildProcessError:
            return False

    def end_all(self, kill_all: Callable[[], object]) -> None:
        """Kill, and collect, until none is left."""
        poll = select.poll()
        poll.register(self.ended, select.POLLIN)
        while self.reap():
            kill_all()
            poll.poll(_PAUSE_SECONDS * 1000)

    @property
    def exit_code(self) -> int:
        """The command's, as `subprocess` tells it; of one that has not ended by itself, that of SIGKILL."""
        return os.waitstatus_to_exitcode(self.status) if self.status is not None else -signal.SIGKILL


def read_refusal(setup: int) -> bytes:
    """Why the command could not be executed; empty when it was."""
    return os.read(setup, _REFUSAL_BYTES)


def kill_everybody() -> None:
    """Kill all that this process may signal. Only where that is known to be the command's processes."""
    try:
        os.kill(-1, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing (more) to kill
        pass


def _run(become: Callable[[], object], tell: int) -> None:
    """In the forked process: become the command, or tell why not and end."""
    reason = "the command could not be set up"
    try:
        become()
    except CannotRun as error:
        reason = str(error)
    except Exception as error:  # whatever it was, this process must not live on beside its parent
        reason = f"{type(error).__name__}: {error}"
    finally:
        os.write(tell, reason.encode(errors="replace")[:_REFUSAL_BYTES])
        os._exit(127)
