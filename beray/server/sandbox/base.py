"""The port through which the agent runs commands: what every sandbox backend offers.

One sandbox holds one command; when the command ends, or is killed, every process it left is gone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

StreamName = Literal["stdout", "stderr"]
ExitReason = Literal["exit", "timeout", "stopped", "memory", "disk", "lost"]
"""`memory`, `disk`: it was ended because it used more than it may.
`lost`: the supervisor vanished (killed from outside); what the command did is unknown."""


class SandboxUnavailable(Exception):
    """No sandbox can be had here; the text says why and what to do."""


class SandboxError(Exception):
    """A command could not be started; the text says why."""


class InputClosed(Exception):
    """Nothing more can be written to the command; the text says why."""


@dataclass(frozen=True)
class Limits:
    """What one command may use.

    Attributes:
        memory_bytes: All its processes together, where the probe says so; each process in any case.
        processes: Processes and threads at the same time.
        file_bytes: Size of one file.
        disk_bytes: What the task's work_dir and home may hold on disk together. A command is ended that makes them hold
            more; one that frees space is not.
        free_bytes: Free space on their file system below which a command that takes more of it is ended.
    """

    wall_seconds: float = 120
    memory_bytes: int = 4 << 30
    processes: int = 256
    file_bytes: int = 1 << 30
    disk_bytes: int = 5 << 30
    free_bytes: int = 0
    cpu_seconds: int = 3600
    open_files: int = 1024


@dataclass(frozen=True)
class Spec:
    """One command.

    Attributes:
        argv: Program and arguments; the program is looked up in the sandbox's PATH. No NUL characters.
        work_dir: Absolute path of the task's work_dir on the host; the only place that can be written.
        cwd: Folder to start in, relative to the work_dir; falls back to the work_dir if it is not inside or gone.
        env: Further environment variables; the sandbox sets PATH, HOME, USER, LANG and the like by itself.
        uid: Uid (and gid) the command runs under when the server is root; None when it is not.
        stdin: Bytes the command reads from descriptor 0; empty means /dev/null.
        has_input: Descriptor 0 is a pipe instead, which `Process.write` fills; not together with `stdin`.
        task_id: Whose command it is, when it may reach the hosts that `sandbox_allow_hosts` names; None: no network.
        has_report: Descriptor 3 of the command is a pipe; its first 64 KiB come back as `Exit.report`.
        disk_before: The `Exit.disk_bytes` of the task's command before, if there was one.
    """

    argv: Sequence[str]
    work_dir: Path
    cwd: str = "."
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    stdin: bytes = b""
    has_input: bool = False
    task_id: int | None = None
    has_report: bool = False
    disk_before: int | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Exit:
    """How a command ended.

    Attributes:
        code: Exit status, or minus the number of the signal that ended it (as `subprocess` does). Bubblewrap can't tell
            a signal n from the exit status 128 + n; both are given as -n.
        reason: Who ended it.
        report: What the command wrote to descriptor 3, at most 64 KiB.
        disk_bytes: What work_dir and home hold on disk now; None if it was stopped or lost, or nobody could count.
    """

    code: int
    reason: ExitReason
    report: bytes = b""
    disk_bytes: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Confinement:
    """One row of what a probe saw: is this closed to a command, and if not, why."""

    name: Literal["files", "processes", "signals", "network", "metadata", "memory", "process_count", "disk"]
    is_confined: bool
    note: str = ""


def reasons_open(rows: Iterable[Confinement], names: Collection[str]) -> str:
    """Which of the named rows are open, and why; empty when none is."""
    return "; ".join(f"{row.name}: {row.note}" for row in rows if row.name in names and not row.is_confined)


@dataclass(frozen=True)
class Capabilities:
    """What a probe saw when it ran a harmless attacker in the sandbox."""

    backend: str
    confinements: tuple[Confinement, ...]
    python: str | None
    """Interpreter a command can execute, as seen inside the sandbox; None: the python tool is unavailable."""
    notes: tuple[str, ...] = ()


class Process(Protocol):
    """A running command."""

    async def read(self) -> tuple[StreamName, bytes] | None:
        """The next output (at most 64 KiB), in order of arrival per stream; None when both streams have ended.

        Output that nobody reads stops the command by backpressure; it is not buffered without bound.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Give a command with `has_input` more to read, after what it was given before; one caller at a time.

        Waits while the command does not read: no more than some hundred KiB are on their way to it. If this is
        cancelled, the command may have got a part.

        Raises:
            InputClosed: The command has ended, or its input is closed. A command that only has closed its own end may
                be noticed no sooner than by its end.
        """
        ...

    async def close_input(self) -> None:
        """Let a command with `has_input` read to the end of file. May be called at any time, and twice."""
        ...

    async def wait(self) -> Exit:
        """How it ended; returns when no process of the command is left."""
        ...

    async def kill(self) -> None:
        """End every process of the command; returns when none is left. May be called at any time, and twice."""
        ...


class Sandbox(Protocol):
    """A backend."""

    name: str

    async def probe(self) -> Capabilities:
        """Run a harmless attacker inside and report what is closed to it.

        Raises:
            SandboxUnavailable: It does not work here; says why, and the remedy.
        """
        ...

    async def start(self, spec: Spec) -> Process:
        """Start a command.

        Raises:
            SandboxError: It could not be started (unknown program, bad argument).
        """
        ...

    async def close(self) -> None:
        """Kill every command that still runs and release what the backend holds."""
        ...
