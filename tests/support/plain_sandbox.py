"""A sandbox that confines nothing: for tests of what runs commands, not of what confines them."""

import asyncio
import contextlib
import os
import shutil
import signal
from asyncio.subprocess import Process as Subprocess

from beray.server.sandbox.base import Capabilities, Exit, ExitReason, InputClosed, SandboxError, Spec, StreamName

CHUNK = 64 * 1024
_MAP_REPORT = 'exec 3>&"$1"; eval "exec $1>&-"; shift; exec "$@"'


class PlainSandbox:
    """Runs each command in a process group of its own, which it kills at the end."""

    name = "plain"

    def __init__(self) -> None:
        self.started: list[Spec] = []
        self.running: set[PlainProcess] = set()

    async def probe(self) -> Capabilities:
        return Capabilities("plain", (), shutil.which("python3"))

    async def start(self, spec: Spec) -> "PlainProcess":
        self.started.append(spec)
        process = PlainProcess(self, spec)
        await process.open()
        return process

    async def close(self) -> None:
        for process in list(self.running):
            await process.kill()


class PlainProcess:
    def __init__(self, sandbox: PlainSandbox, spec: Spec) -> None:
        self._sandbox = sandbox
        self._spec = spec
        self._reason: ExitReason = "exit"
        self._report = b""
        self._is_over = False
        self._output: asyncio.Queue[tuple[StreamName, bytes] | None] = asyncio.Queue(maxsize=4)
        self._tasks: list[asyncio.Task[object]] = []
        self._process: Subprocess | None = None

    async def open(self) -> None:
        spec = self._spec
        folder = spec.work_dir / spec.cwd
        report_in, report_out = os.pipe()
        env = {"PATH": os.environ["PATH"], "HOME": str(spec.work_dir), "LANG": "C.UTF-8", **spec.env}
        # descriptor 3 is put in place by a shell: asyncio offers no way to map descriptors
        argv = ["bash", "-c", _MAP_REPORT, "bash", str(report_out), *spec.argv] if spec.has_report else [*spec.argv]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=folder if folder.is_dir() else spec.work_dir,
                env=env,
                stdin=asyncio.subprocess.PIPE if spec.stdin or spec.has_input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=[report_out] if spec.has_report else [],
            )
        except (OSError, ValueError) as error:
            os.close(report_in)
            raise SandboxError(str(error)) from error
        finally:
            os.close(report_out)
        self._sandbox.running.add(self)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._pump()), loop.create_task(self._read_report(report_in))]
        if spec.stdin:
            self._tasks.append(loop.create_task(self._feed()))
        self._timer = loop.call_later(spec.limits.wall_seconds, self._time_out)

    async def read(self) -> tuple[StreamName, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        assert self._process is not None
        if self._process.stdin is None or self._process.stdin.is_closing() or self._process.returncode is not None:
            raise InputClosed("The command's input is closed, or it has ended.")
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise InputClosed("The command has ended.") from error

    async def close_input(self) -> None:
        assert self._process is not None
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def wait(self) -> Exit:
        assert self._process is not None
        code = await self._process.wait()
        self._kill_group()
        self._is_over = True
        await asyncio.gather(*self._tasks[1:])
        self._timer.cancel()
        self._sandbox.running.discard(self)
        return Exit(code, self._reason, self._report)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._reason = "stopped"
        self._kill_group()
        discarding = asyncio.create_task(self._discard())  # asyncio tells an end only when all output was taken
        await self._process.wait()
        discarding.cancel()
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._process._transport.close()  # its pipes, which nobody reads any more
        self._sandbox.running.discard(self)

    async def _discard(self) -> None:
        while await self._output.get() is not None:
            pass

    def _time_out(self) -> None:
        self._reason = "timeout"
        self._kill_group()

    def _kill_group(self) -> None:
        """Its number may be another's once nobody is left in it."""
        assert self._process is not None
        if self._is_over:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _pump(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None

        async def pump(stream: asyncio.StreamReader, name: StreamName) -> None:
            while piece := await stream.read(CHUNK):
                await self._output.put((name, piece))

        await asyncio.gather(pump(self._process.stdout, "stdout"), pump(self._process.stderr, "stderr"))
        await self._output.put(None)

    async def _feed(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(self._spec.stdin)
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def _read_report(self, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
        )
        try:
            while len(self._report) < CHUNK and (piece := await reader.read(CHUNK)):
                self._report += piece[: CHUNK - len(self._report)]
        finally:
            transport.close()
