"""A sandbox of any backend: finds its python, lets itself be probed, starts commands."""

import asyncio
import dataclasses

from beray.server.sandbox.backend import Confine, Launcher
from beray.server.sandbox.base import (
    Capabilities,
    Confinement,
    Process,
    SandboxError,
    SandboxUnavailable,
    Spec,
    reasons_open,
)
from beray.server.sandbox.egress.proxy import Egress
from beray.server.sandbox.environment import Layout
from beray.server.sandbox.guard.egress import PORT as PROXY_PORT
from beray.server.sandbox.interpreter import CHECK, Interpreter, candidates, write_commands
from beray.server.sandbox.probe import LIMITS, run, run_probe, shown, work_folder
from beray.server.sandbox.quota import find_quotas

REQUIRED = frozenset({"files", "processes", "signals", "network"})
"""What a backend that claims to confine must close; one that doesn't here is refused."""

_NO_TASK = 0  # the ids of tasks begin at 1
_ASK_PROXY = f"""
import socket
with socket.create_connection(("127.0.0.1", {PROXY_PORT}), 10) as proxy:
    proxy.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    answer = proxy.recv(64)
assert answer.startswith(b"HTTP/1.1 403 "), answer
"""


class GuardedSandbox:
    """Commands under supervisors of one fork server. See the port `Sandbox`.

    Args:
        confine: The backend.
        layout: Its folders, which exist.
        probe_uid: The uid the probe's commands run under when the server is root.
        python: The interpreter the operator chose, if any.
        notes: What the operator should know about this backend here.
        egress: The way out of commands that have a task; None: there is none.
    """

    def __init__(
        self,
        confine: Confine,
        layout: Layout,
        *,
        probe_uid: int | None,
        python: str | None = None,
        notes: tuple[str, ...] = (),
        egress: Egress | None = None,
    ) -> None:
        self.name = confine.name
        self._launcher = Launcher(confine, layout, find_quotas(layout.root, probe_uid), egress)
        self._probe_uid = probe_uid
        self._python = python
        self._notes = notes
        self._has_egress = egress is not None

    @property
    def fork_server_pid(self) -> int | None:
        """Process number of the fork server, when it runs."""
        return self._launcher.fork_server_pid

    async def probe(self) -> Capabilities:
        """See the port."""
        await self._try_command()
        python = await self._find_python()
        self._launcher.layout = dataclasses.replace(self._launcher.layout, interpreter=python)
        launcher = self._launcher
        seen = await run_probe(launcher, python=python, uid=self._probe_uid, has_quotas=launcher.has_quotas)
        rows = seen.confinements if self.name != "none" else tuple(map(_unhidden, seen.confinements))
        if self.name != "none" and (reasons := reasons_open(seen.confinements, REQUIRED)):
            raise SandboxUnavailable(reasons)
        if self._has_egress:
            await self._try_egress(python)
        return Capabilities(self.name, rows, python, (*self._notes, *seen.notes))

    async def start(self, spec: Spec) -> Process:
        """See the port."""
        return await self._launcher.start(spec)

    async def close(self) -> None:
        """See the port."""
        await self._launcher.close()

    async def _try_command(self) -> None:
        """Run the simplest of commands: what is wrong with the sandbox itself must not be taken for something else."""
        with work_folder(self._launcher.layout.root, self._probe_uid) as folder:
            try:
                how, output = await run(self._launcher, Spec(["true"], folder, uid=self._probe_uid, limits=LIMITS))
            except SandboxError as error:
                raise SandboxUnavailable(f"a command could not be run: {error}") from error
        if how.code != 0:
            raise SandboxUnavailable(f"a command could not be run: {shown(output)} (status {how.code})")

    async def _try_egress(self, python: str) -> None:
        """See that the proxy answers a command: with a refusal, since nothing outside is to be asked."""
        with work_folder(self._launcher.layout.root, self._probe_uid) as folder:
            spec = Spec(
                [python, "-I", "-S", "-c", _ASK_PROXY], folder, uid=self._probe_uid, task_id=_NO_TASK, limits=LIMITS
            )
            try:
                how, output = await run(self._launcher, spec)
            except SandboxError as error:
                raise SandboxUnavailable(f"a command with a way to the network could not be run: {error}") from error
        if how.code != 0:
            raise SandboxUnavailable(f"a command can't reach the proxy: {shown(output)} (status {how.code})")

    async def _find_python(self) -> str:
        """The first interpreter that runs inside; it becomes `python` and `python3` for all commands."""
        reasons: list[str] = []
        tried = candidates(self._launcher.layout, self._python)
        while (candidate := await asyncio.to_thread(next, tried, None)) is not None:
            reason = await self._try_python(candidate)
            if reason is None:
                return await self._adopt(candidate)
            reasons.append(f"{candidate.path}: {reason}")
        wish = (
            "set BERAY_SANDBOX_PYTHON to another one"
            if self._python
            else "install python3, or set BERAY_SANDBOX_PYTHON"
        )
        raise SandboxUnavailable(f"no python can be run inside; {wish} ({'; '.join(reasons) or 'none found'})")

    async def _try_python(self, candidate: Interpreter) -> str | None:
        """Why the candidate can't be used; None if it can."""
        before = self._launcher.layout
        self._launcher.layout = dataclasses.replace(before, interpreter_paths=candidate.paths)
        env = {} if candidate.library_path is None else {"LD_LIBRARY_PATH": candidate.library_path}
        with work_folder(before.root, self._probe_uid) as folder:
            spec = Spec([candidate.path, "-I", "-S", "-c", CHECK], folder, env=env, uid=self._probe_uid, limits=LIMITS)
            try:
                how, output = await run(self._launcher, spec)
            except SandboxError as error:
                return str(error)
        return None if how.code == 0 else shown(output)

    async def _adopt(self, candidate: Interpreter) -> str:
        await asyncio.to_thread(write_commands, self._launcher.layout, candidate)
        if candidate.library_path is None:
            return candidate.path
        return str(self._launcher.layout.bin / "python3")


def _unhidden(row: Confinement) -> Confinement:
    """Where tasks have uids of their own, the attacker fails by them; what everybody may read is open all the same."""
    if row.name != "files":
        return row
    return Confinement("files", False, "nothing is hidden: a command reads and writes what its user may, anywhere")
