"""Exit statuses and the two lines of an error: what happened, and what to do."""

from enum import IntEnum


class Exit(IntEnum):
    """What `beray` ends with. 0, 1, 2, 4 follow gh; 124 follows timeout(1); 130 and 143 follow the shells."""

    OK = 0
    ERROR = 1
    USAGE = 2
    TASK_FAILED = 3
    AUTH = 4
    NOT_FOUND = 5
    CONFLICT = 6
    NETWORK = 7
    TASK_STOPPED = 8
    TIMEOUT = 124
    INTERRUPTED = 130
    TERMINATED = 143


class CliError(Exception):
    """Something the person at the terminal should know.

    Args:
        what: One line: what happened, to what.
        remedy: One line: what to do; empty where there is nothing to do.
        exit: What the process ends with.
        details: Further lines, such as the end of a log.
    """

    def __init__(self, what: str, remedy: str, exit: Exit, *, details: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.exit = exit
        self.details = details


class Terminated(BaseException):
    """SIGTERM was received; like `KeyboardInterrupt`, nothing but the edge may swallow it."""
