"""What the server, the fork server and a supervisor tell one another.

A `Job` travels as JSON in a memory file, since a datagram could not hold a long command line. With it come, always in
this order, the descriptors of `JobFiles`. The control socket carries the supervisor's `Message`s; the server only
ever sends `STOP` over it, and its end of file means that the server is gone.
"""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

RUN = b"run"
RUN_BYTES = 64
STOP = b"stop"
MESSAGE_BYTES = 4096

MessageKind = Literal["accepted", "started", "refused", "exit", "timeout", "stopped", "memory", "disk", "lost"]
"""In this order: `accepted`, when a supervisor has the job; `started` or `refused` (the command could not be executed);
one of the rest."""

RESERVED_FDS = 4
"""Descriptors below this number have a meaning of their own in a command's process (3 is its report pipe, if it has
one); nothing else is ever put there."""


@dataclass(frozen=True)
class JobLimits:
    """What the command may use.

    Attributes:
        memory_bytes: Each process; together too.
        counted_processes: How many at the same time, where the limit is set by uid. None: bubblewrap does it inside.
        disk_bytes: Of the work_dir and the home together.
        disk_before: What they held when the command started, if that is known.
        free_bytes: Free space of their file system that is left alone.
    """

    wall_seconds: float
    memory_bytes: int
    processes: int
    counted_processes: int | None
    file_bytes: int
    cpu_seconds: int
    open_files: int
    disk_bytes: int
    disk_before: int | None
    free_bytes: int
    counts_only_own: bool
    """The uid is this task's alone, so that RLIMIT_NPROC counts nobody else's processes."""


@dataclass(frozen=True)
class LandlockJob:
    """Folders and files a command may use under Landlock; everything else is denied.

    Attributes:
        abi: The Landlock ABI whose rights are used, at most the kernel's.
        sees_others: The command's uid is the server's too, so that the filter has to shield other processes.
    """

    abi: int
    read_only: tuple[str, ...]
    read_write: tuple[str, ...]
    devices: tuple[str, ...]
    sees_others: bool


@dataclass(frozen=True)
class BubblewrapJob:
    """How bubblewrap is called.

    Attributes:
        program: The `bwrap` to execute.
        options: Its options up to the mounts.
        copied_files: Files of this machine that are copied to the same place inside; one that isn't there is left out.
        made_files: Further files inside, by path.
        last_options: Its options after all mounts and files.
        opener: Program and options that open the way to the network inside, then run the rest; empty: there is none.
        wrapper: Program and options that run the command inside, for limits that only count there.
    """

    program: str
    options: tuple[str, ...]
    copied_files: tuple[str, ...]
    made_files: dict[str, str]
    last_options: tuple[str, ...]
    wrapper: tuple[str, ...]
    opener: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One command as the supervisor gets it: everything decided, every path absolute."""

    argv: tuple[str, ...]
    env: dict[str, str]
    work_dir: str
    home: str
    cwd: str
    uid: int | None
    limits: JobLimits
    scopes_signals: bool
    """The kernel has Landlock's signal scope, by which the supervisor ends everything at once."""
    landlock: LandlockJob | None = None
    bubblewrap: BubblewrapJob | None = None

    def encode(self) -> bytes:
        """As JSON; names that are no valid UTF-8 survive as surrogates."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, raw: bytes) -> "Job":
        """The reverse of `encode`."""
        body: dict[str, Any] = json.loads(raw)
        body["argv"] = tuple(body["argv"])
        body["limits"] = JobLimits(**body["limits"])
        if body["landlock"] is not None:
            body["landlock"] = LandlockJob(**body["landlock"])
        if body["bubblewrap"] is not None:
            body["bubblewrap"] = BubblewrapJob(**body["bubblewrap"])
        return cls(**body)


_NEEDED_FILES = ("job", "control", "stdin", "stdout", "stderr")
_OPTIONAL_FILES = ("report", "egress")


@dataclass(frozen=True)
class JobFiles:
    """Descriptors that come with a job, in the order they are sent.

    Attributes:
        report: Becomes the command's descriptor 3.
        egress: Socket over which the listener of the command's network namespace goes to the server.
    """

    job: int
    control: int
    stdin: int
    stdout: int
    stderr: int
    report: int | None = None
    egress: int | None = None

    @property
    def message(self) -> bytes:
        """What they are sent with: `RUN`, and which of the last ones are there."""
        return b" ".join([RUN, *(name.encode() for name in _OPTIONAL_FILES if getattr(self, name) is not None)])

    @classmethod
    def received(cls, message: bytes, fds: list[int]) -> "JobFiles | None":
        """What was sent; None, and all closed, if some are missing since the receiver had no descriptors left."""
        names = [*_NEEDED_FILES, *message.decode("ascii").split()[1:]]
        if len(fds) == len(names):
            return cls(**dict(zip(names, fds, strict=True)))
        for fd in fds:
            os.close(fd)
        return None

    def as_list(self) -> list[int]:
        """In the order they are sent."""
        last = [fd for fd in (self.report, self.egress) if fd is not None]
        return [self.job, self.control, self.stdin, self.stdout, self.stderr, *last]

    def close(self) -> None:
        """Close all of them."""
        for fd in self.as_list():
            os.close(fd)


@dataclass(frozen=True)
class Message:
    """What a supervisor says.

    Attributes:
        kind: What happened.
        code: When it ended: the exit code, or minus the signal. When it was accepted: the supervisor's process number.
        reason: Why a start was refused. When it was accepted: why there is no control group, if there is none.
        disk_bytes: When it ended: what work_dir and home hold on disk, unless it was stopped.
    """

    kind: MessageKind
    code: int = 0
    reason: str = ""
    disk_bytes: int | None = None

    def encode(self) -> bytes:
        """As one datagram."""
        return json.dumps(asdict(self)).encode("ascii")[:MESSAGE_BYTES]

    @classmethod
    def decode(cls, raw: bytes) -> "Message":
        """The reverse of `encode`."""
        return cls(**json.loads(raw))
