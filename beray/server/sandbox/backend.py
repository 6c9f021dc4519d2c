"""What all backends share: they check a spec, make it a job for the fork server, and differ only in the confinement."""

import asyncio
import contextlib
import os
import re
import socket
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from beray.server.sandbox.base import Limits, SandboxError, Spec
from beray.server.sandbox.egress.proxy import Egress
from beray.server.sandbox.environment import Layout, command_environment, proxy_environment
from beray.server.sandbox.forkserver import ForkServer, memory_file
from beray.server.sandbox.guard.wire import BubblewrapJob, Job, JobFiles, JobLimits, LandlockJob
from beray.server.sandbox.process import GuardedProcess, OurEnds
from beray.server.sandbox.quota import UserQuotas

START_SECONDS = 30.0
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Place:
    """Where one command works: its folders, the uid it sees itself under, and what surrounds it.

    Attributes:
        has_egress: The way to the hosts that are allowed is to be opened.
    """

    work_dir: str
    home: str
    uid: int
    layout: Layout
    has_egress: bool = False


class Confine(Protocol):
    """How one backend confines a command."""

    @property
    def name(self) -> str:
        """The backend's name."""
        ...

    @property
    def scopes_signals(self) -> bool:
        """The supervisor may use Landlock's signal scope to end a command."""
        ...

    def confine(self, place: Place, limits: Limits) -> LandlockJob | BubblewrapJob | None:
        """What the fork server is told; None: nothing is confined."""
        ...


def home_of(work_dir: Path) -> Path:
    """The task's HOME, beside its work_dir: it lives as long, holds TMPDIR, and shows in no listing."""
    return work_dir.with_name(f"{work_dir.name}.home")


class Launcher:
    """Starts commands for one backend and knows those that run. Used from one event loop."""

    def __init__(
        self, confine: Confine, layout: Layout, quotas: UserQuotas | None = None, egress: Egress | None = None
    ) -> None:
        self._confine = confine
        self._quotas = quotas
        self._egress = egress
        self.layout = layout
        self._fork_server = ForkServer()
        self._running: weakref.WeakSet[GuardedProcess] = weakref.WeakSet()

    @property
    def fork_server_pid(self) -> int | None:
        """Process number of the fork server, when it runs."""
        return self._fork_server.pid

    @property
    def has_quotas(self) -> bool:
        """The file system itself limits what a uid's files hold."""
        return self._quotas is not None

    async def start(self, spec: Spec) -> GuardedProcess:
        """See the port `Sandbox.start`."""
        job = self._job(spec)
        if self._quotas is not None and spec.uid is not None:
            self._quotas.limit(spec.uid, spec.limits.disk_bytes)
        try:
            return await self._launch(job, spec)
        except ConnectionResetError:  # the fork server was killed under our hands: a new one is started, once
            pass
        try:
            return await self._launch(job, spec)
        except ConnectionResetError as error:
            raise SandboxError(f"The command could not be started: {error}.") from error

    async def close(self) -> None:
        """Kill what still runs, then end the fork server."""
        running = list(self._running)
        await asyncio.gather(*(process.kill() for process in running), return_exceptions=True)
        for process in running:
            process.abandon()
        await self._fork_server.close()
        if self._egress is not None:
            await self._egress.close()

    def _job(self, spec: Spec) -> Job:
        check_spec(spec)
        work_dir = os.path.realpath(spec.work_dir)
        home = str(home_of(Path(work_dir)))
        limits = spec.limits
        uid = os.getuid() if spec.uid is None else spec.uid
        has_egress = self._egress is not None and spec.task_id is not None
        confinement = self._confine.confine(Place(work_dir, home, uid, self.layout, has_egress), limits)
        proxy = proxy_environment() if has_egress else {}
        limits_inside = isinstance(confinement, BubblewrapJob)
        return Job(
            argv=tuple(spec.argv),
            env=command_environment(self.layout, home) | proxy | dict(spec.env),
            work_dir=work_dir,
            home=home,
            cwd=spec.cwd,
            uid=spec.uid,
            limits=job_limits(
                spec,
                counted_processes=None if limits_inside else limits.processes,
                counts_only_own=spec.uid is not None,
            ),
            scopes_signals=self._confine.scopes_signals,
            landlock=confinement if isinstance(confinement, LandlockJob) else None,
            bubblewrap=confinement if isinstance(confinement, BubblewrapJob) else None,
        )

    async def _launch(self, job: Job, spec: Spec) -> GuardedProcess:
        try:
            files, process = _open_channels(job.encode(), spec)
        except OSError as error:
            raise SandboxError(f"The command could not be started: {error.strerror}.") from error
        self._running.add(process)
        try:
            files = self._open_door(files, process, spec)
            await self._fork_server.send(files)
        except BaseException as error:
            process.abandon()
            if isinstance(error, TimeoutError):
                raise SandboxError("The sandbox's fork server takes no more commands.") from error
            raise
        finally:
            files.close()
        await process.started(within_seconds=START_SECONDS, wall_seconds=spec.limits.wall_seconds)
        return process

    def _open_door(self, files: JobFiles, process: GuardedProcess, spec: Spec) -> JobFiles:
        """With the way out, if the command has one; it is shut when the command has ended."""
        if self._egress is None or spec.task_id is None:
            return files
        try:
            door, control = self._egress.open_door(spec.task_id)
        except OSError as error:
            raise SandboxError(f"The command could not be given its way to the network: {error.strerror}.") from error
        process.when_ended(door.shut)
        return replace(files, egress=control)


def _open_channels(job: bytes, spec: Spec) -> tuple[JobFiles, GuardedProcess]:
    """The descriptors that go to the supervisor, and the process that holds their other ends."""
    with contextlib.ExitStack() as undo:

        def keep(*fds: int) -> Sequence[int]:
            for fd in fds:
                undo.callback(os.close, fd)
            return fds

        (job_fd,) = keep(memory_file(job))
        stdin, *input_end = keep(*_open_stdin(spec))
        stdout, stdout_end = keep(*os.pipe2(os.O_CLOEXEC))
        stderr, stderr_end = keep(*os.pipe2(os.O_CLOEXEC))
        report, report_end = keep(*os.pipe2(os.O_CLOEXEC)) if spec.has_report else (None, None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = JobFiles(job_fd, theirs.detach(), stdin, stdout_end, stderr_end, report_end)
        process = GuardedProcess(ours, OurEnds(stdout, stderr, report, *input_end))
        undo.pop_all()  # from here on each end has its owner
        return files, process


def _open_stdin(spec: Spec) -> Sequence[int]:
    """What becomes the command's descriptor 0 and, if it is a pipe, the end that we write to."""
    if spec.has_input:
        return os.pipe2(os.O_CLOEXEC)
    return (memory_file(spec.stdin) if spec.stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),)


def job_limits(spec: Spec, *, counted_processes: int | None, counts_only_own: bool) -> JobLimits:
    """A spec's limits as the fork server or a container's first process gets them; see there for the two."""
    limits = spec.limits
    return JobLimits(
        wall_seconds=limits.wall_seconds,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        counted_processes=counted_processes,
        file_bytes=limits.file_bytes,
        cpu_seconds=limits.cpu_seconds,
        open_files=limits.open_files,
        disk_bytes=limits.disk_bytes,
        disk_before=spec.disk_before,
        free_bytes=limits.free_bytes,
        counts_only_own=counts_only_own,
    )


def check_spec(spec: Spec) -> None:
    """Refuse what can't be a command.

    Raises:
        SandboxError: Says what is wrong.
    """
    if not spec.argv or not spec.argv[0]:
        raise SandboxError("The command is empty.")
    if any("\0" in argument for argument in spec.argv):
        raise SandboxError("An argument of the command holds a NUL character, which no program can be given.")
    for name, value in spec.env.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise SandboxError(f"{name!r} can't be an environment variable.")
    if spec.has_input and spec.stdin:
        raise SandboxError("A command reads what it is given at its start, or what is written to it, not both.")
    if not spec.work_dir.is_absolute():
        raise SandboxError(f"The work_dir {spec.work_dir} is not an absolute path.")
    if spec.uid is not None and os.geteuid() != 0:
        raise SandboxError("Only a server that is root can give a command a uid.")
    if spec.uid is None and os.geteuid() == 0:
        raise SandboxError("A command never runs as root; give it a uid.")
