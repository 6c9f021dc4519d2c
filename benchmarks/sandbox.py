"""What a sandbox costs a command: start to end of `true`, beside a plain subprocess, and the stop of 150 processes."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from benchmarks.measure import Benchmark, Goal, Side
from beray.server.sandbox.base import Capabilities, Limits, Process, Sandbox, SandboxUnavailable, Spec
from beray.server.sandbox.choose import open_sandbox
from beray.server.sandbox.uids import TaskUids
from beray.server.settings import Settings

BACKENDS: Final = ("bubblewrap", "landlock")
GOALS: Final = {"bubblewrap": 15, "landlock": 10}  # ms over a plain subprocess
ROUNDS: Final = 40
STOP_ROUNDS: Final = 5
REST_SECONDS: Final = 0.03  # between commands: a task's come one after the other, with a model's answer between
LIMITS: Final = Limits(wall_seconds=30)
STUBBORN: Final = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(149):
    if os.fork() == 0:
        if number % 3 == 0: os.setsid()
        break
os.write(1, b".")
signal.pause()
"""


class Task:
    """A task's folders in one sandbox, and commands in them."""

    def __init__(self, sandbox: Sandbox, capabilities: Capabilities, folder: Path) -> None:
        self.python = capabilities.python
        self._sandbox = sandbox
        self._uid = TaskUids()(1)
        self._work_dir = folder / "1" / "work"
        self._work_dir.mkdir(parents=True)
        if self._uid is not None:
            os.chown(self._work_dir, self._uid, self._uid)

    async def start(self, *argv: str, task_id: int | None = None) -> Process:
        """A command that runs."""
        return await self._sandbox.start(Spec(argv, self._work_dir, uid=self._uid, task_id=task_id, limits=LIMITS))

    async def run_true(self) -> None:
        """Start `true`, read its output to the end, wait until nothing of it is left."""
        await self._run_true(task_id=None)

    async def run_true_with_network(self) -> None:
        """The same, by a command that could reach the hosts which are allowed."""
        await self._run_true(task_id=1)

    async def _run_true(self, task_id: int | None) -> None:
        process = await self.start("true", task_id=task_id)
        while await process.read() is not None:
            pass
        await process.wait()

    async def stop_many(self) -> None:
        """Stop what `light` has started."""
        await self._many.kill()

    async def light(self) -> None:
        """150 processes that ignore SIGTERM."""
        assert self.python is not None
        self._many = await self.start(self.python, "-I", "-S", "-c", STUBBORN)
        seen = 0
        while seen < 150:
            piece = await self._many.read()
            assert piece is not None
            seen += len(piece[1])


async def run_plain() -> None:
    """The other side."""
    process = await asyncio.create_subprocess_exec(
        "true", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await process.communicate()


def main() -> None:
    """Measure each sandbox there is here."""
    with Benchmark("sandbox") as bench:
        for backend in BACKENDS:
            asyncio.run(_measure(bench, backend))
        asyncio.run(_measure_network(bench))


async def _measure(bench: Benchmark, backend: str) -> None:
    async with AsyncExitStack() as stack:
        try:
            sandbox, capabilities = await open_sandbox(Settings(sandbox=backend), data_dir=bench.folder / backend)
        except SandboxUnavailable as error:
            print(f"{backend} can't be had here: {error}")
            return
        stack.push_async_callback(sandbox.close)
        task = Task(sandbox, capabilities, bench.folder / backend)
        plain: list[float] = []
        ours: list[float] = []
        for _ in range(ROUNDS):
            plain.append(await _milliseconds(run_plain))
            ours.append(await _milliseconds(task.run_true))
        goal = Goal("≤", GOALS[backend], of="difference")
        bench.compare(
            "one command", unit="ms", ours=Side(backend, ours), other=Side("plain subprocess", plain), goal=goal
        )
        stops: list[float] = []
        for _ in range(STOP_ROUNDS):
            await task.light()
            stops.append(await _milliseconds(task.stop_many))
        goal = Goal("≤", 1000, of="figure")
        bench.note("stop of 150 processes that ignore SIGTERM", unit="ms", ours=Side(backend, stops), goal=goal)


async def _measure_network(bench: Benchmark) -> None:
    """What the way to allowed hosts costs a command that does not use it."""
    folder = bench.folder / "network"
    settings = Settings(sandbox="bubblewrap", sandbox_allow_hosts=("data.gov",))
    try:
        sandbox, capabilities = await open_sandbox(settings, data_dir=folder)
    except SandboxUnavailable as error:
        print(f"no network can be opened here: {error}")
        return
    task = Task(sandbox, capabilities, folder)
    closed: list[float] = []
    opened: list[float] = []
    for _ in range(ROUNDS):
        closed.append(await _milliseconds(task.run_true))
        opened.append(await _milliseconds(task.run_true_with_network))
    await sandbox.close()
    bench.compare(
        "one command that may reach allowed hosts",
        unit="ms",
        ours=Side("with a way to them", opened),
        other=Side("bubblewrap without network", closed),
    )


async def _milliseconds(work: Callable[[], Coroutine[None, None, None]]) -> float:
    await asyncio.sleep(REST_SECONDS)
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
