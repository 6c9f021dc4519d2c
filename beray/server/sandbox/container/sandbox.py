"""The container backend: each command in a container of its own, which ends with it.

One a command, not one a task with `exec`: so the end of a command is the end of its process 1, and the kernel then
leaves nothing of it; its memory and processes are counted by a control group of its own. The price, as measured, stands
in the documentation of the sandbox.
"""

import asyncio
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path

from beray.server.sandbox.backend import check_spec, home_of, job_limits
from beray.server.sandbox.base import (
    Capabilities,
    SandboxError,
    SandboxUnavailable,
    Spec,
    reasons_open,
)
from beray.server.sandbox.container.engine import Engine, find_engine, label_of
from beray.server.sandbox.container.options import Container, Image, run_command
from beray.server.sandbox.container.place import (
    Holding,
    check_mountable,
    container_layout,
    copy_inside,
    remove_leftovers,
)
from beray.server.sandbox.container.process import ContainerProcess, Order
from beray.server.sandbox.environment import Account, Layout, command_environment
from beray.server.sandbox.guard.home import make_home
from beray.server.sandbox.guard.wire import Job
from beray.server.sandbox.guarded import REQUIRED
from beray.server.sandbox.interpreter import CHECK, Interpreter, write_commands
from beray.server.sandbox.probe import LIMITS, run, run_probe, shown, work_folder
from beray.server.sandbox.quota import find_quotas

START_SECONDS = 60.0  # a virtual machine around the container (Kata) takes 6 s to start, and several may start at once
CLOSE_SECONDS = 30.0

_FIND_PYTHON = f"{CHECK}; print(sys.executable)"


@dataclass(frozen=True)
class Choice:
    """What the operator set.

    Attributes:
        engine: `auto`, `podman`, `docker` or a path.
        image: Name of the image.
        runtime: Name or path of the runtime, None for the engine's own.
        python: Interpreter in the image.
    """

    engine: str
    image: str
    runtime: str | None
    python: str | None


@dataclass(frozen=True)
class _Opened:
    """What commands need, once the engine has answered."""

    engine: Engine
    image: Image
    inside: Path
    holding: Holding


class ContainerSandbox:
    """Commands in containers. See the port `Sandbox`.

    Args:
        choice: What the operator set.
        data_dir: The data folder; its folder `sandbox` exists.
        probe_uid: The uid the probe's commands run under when the server is root.
        note: What is to be told about the uids of tasks.

    Raises:
        SandboxUnavailable: The data folder can't be mounted.
    """

    name = "container"

    def __init__(self, choice: Choice, data_dir: Path, *, probe_uid: int | None, note: str) -> None:
        self._choice = choice
        self._data_dir = Path(os.path.realpath(data_dir))
        self._probe_uid = probe_uid
        self._note = note
        self.layout: Layout = container_layout(self._data_dir / "sandbox")
        self._quotas = find_quotas(self.layout.root, probe_uid)
        self._opened: _Opened | None = None
        self._numbers = itertools.count(1)
        self._running: set[ContainerProcess] = set()
        self._none_runs = asyncio.Event()

    async def probe(self) -> Capabilities:
        """See the port."""
        self._opened = opened = await asyncio.to_thread(self._open)
        python = await self._find_python()
        await asyncio.to_thread(write_commands, self.layout, Interpreter(python))
        seen = await run_probe(self, python=python, uid=self._probe_uid, has_quotas=self._quotas is not None)
        if reasons := reasons_open(seen.confinements, REQUIRED):
            raise SandboxUnavailable(reasons)
        return Capabilities(self.name, seen.confinements, python, (*self._notes(opened), *seen.notes))

    async def start(self, spec: Spec) -> ContainerProcess:
        """See the port."""
        check_spec(spec)
        if self._opened is None:
            raise SandboxError("The sandbox is closed.")
        if self._quotas is not None and spec.uid is not None:
            self._quotas.limit(spec.uid, spec.limits.disk_bytes)
        process = self._launch(self._opened, spec)
        await process.started(within_seconds=START_SECONDS, wall_seconds=spec.limits.wall_seconds)
        return process

    async def close(self) -> None:
        """See the port."""
        opened, self._opened = self._opened, None
        await asyncio.gather(*(process.kill() for process in list(self._running)), return_exceptions=True)
        for process in list(self._running):
            process.abandon()
        if opened is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._running:
                    self._none_runs.clear()
                    await self._none_runs.wait()
        except TimeoutError:  # the engine hangs; what it still holds is a leftover for the next server
            pass
        await asyncio.to_thread(opened.holding.release)

    @property
    def client_pids(self) -> list[int]:
        """Process numbers of the engine's clients that run."""
        return [process.client_pid for process in self._running]

    def _open(self) -> _Opened:
        engine = find_engine(self._choice.engine)
        number = engine.image_id(self._choice.image)
        servers = self.layout.root / "servers"
        holding = Holding(servers)
        try:
            remove_leftovers(engine, self._data_dir, servers)
            inside = copy_inside(self.layout)
        except BaseException:
            holding.release()
            raise
        return _Opened(engine, Image(number, self._choice.python or "python3", self._choice.runtime), inside, holding)

    def _launch(self, opened: _Opened, spec: Spec) -> ContainerProcess:
        spec = replace(spec, work_dir=Path(os.path.realpath(spec.work_dir)))
        if not spec.work_dir.is_dir():
            raise SandboxError(f"The work_dir {spec.work_dir} is gone.")
        home = str(home_of(spec.work_dir))
        name = f"beray-{opened.holding.token}-{next(self._numbers)}"
        try:
            check_mountable(spec.work_dir)
            make_home(home, spec.uid)
            container = self._container(opened, spec, home, name)
            order = Order(
                run=run_command(opened.engine, opened.image, container),
                remove=opened.engine.removal([name]),
                job=self._job(spec, home).encode(),
                stdin=spec.stdin,
                has_input=spec.has_input,
                has_report=spec.has_report,
            )
            process = ContainerProcess(order, lambda: self._forget(opened, name, process))
        except (OSError, SandboxUnavailable) as error:
            raise SandboxError(f"The command could not be started: {error}.") from error
        self._running.add(process)
        return process

    def _forget(self, opened: _Opened, name: str, process: ContainerProcess) -> None:
        self._running.discard(process)
        opened.holding.remove_accounts(name)
        if not self._running:
            self._none_runs.set()

    def _container(self, opened: _Opened, spec: Spec, home: str, name: str) -> Container:
        uid = os.getuid() if spec.uid is None else spec.uid
        return Container(
            name=name,
            labels=(label_of(self._data_dir), f"beray.server={opened.holding.token}"),
            uid=uid,
            limits=spec.limits,
            read_only=(*self.layout.read_only, str(opened.inside)),
            writable=(home, str(spec.work_dir)),
            accounts=opened.holding.write_accounts(name, Account(uid, home)),
            inside=str(opened.inside),
        )

    def _job(self, spec: Spec, home: str) -> Job:
        """For process 1, which has the command's uid already.

        The number of processes is the engine's to limit; but an ordinary user's engine has no control group everywhere.
        """
        is_counted_by_engine = self._opened is not None and not self._opened.engine.is_rootless
        return Job(
            argv=tuple(spec.argv),
            env=command_environment(self.layout, home) | dict(spec.env),
            work_dir=str(spec.work_dir),
            home=home,
            cwd=spec.cwd,
            uid=None,
            limits=job_limits(
                spec,
                counted_processes=None if is_counted_by_engine else spec.limits.processes,
                counts_only_own=False,
            ),
            scopes_signals=False,
        )

    async def _find_python(self) -> str:
        """The image's interpreter, as an absolute path; also shows that a command can be run at all."""
        program = self._choice.python or "python3"
        path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # without ours, whose `python3` this is to become
        with work_folder(self.layout.root, self._probe_uid) as folder:
            spec = Spec([program, "-I", "-S", "-c", _FIND_PYTHON], folder, env=path, uid=self._probe_uid, limits=LIMITS)
            try:
                how, output = await run(self, spec)
            except SandboxError as error:
                raise SandboxUnavailable(f"a command could not be run: {error}") from error
        if how.code != 0:
            raise SandboxUnavailable(
                f"the image's python can't be used: {shown(output)}; give the image a whole python3, or name another"
                " with BERAY_SANDBOX_PYTHON"
            )
        return output.decode().splitlines()[-1]

    def _notes(self, opened: _Opened) -> tuple[str, ...]:
        engine, image = opened.engine, opened.image
        rootless = ", rootless" if engine.is_rootless else ""
        notes = [f"{engine.kind} {engine.version}{rootless}", f"image {self._choice.image} ({image.number[-64:][:12]})"]
        if image.runtime is not None:
            notes.append(f"runtime {image.runtime}")
        return (*notes, self._note)
