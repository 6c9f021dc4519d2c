"""What a server needs of memory: idle, after its first task, and for each task that runs.

Resident memory of the server's process (RSS), which holds also what it shares with others (its libraries' code). What
the sandboxes' processes need is told apart, by the shares of memory that is really theirs (PSS).
"""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.measure import Benchmark, Goal, Side, resident_mib
from benchmarks.start import running_plain_app, until
from beray.client import BeRayClient
from tests.support.server import ServerProcess

ROUNDS: Final = 5
RUNNING: Final = 10
SETTLE_SECONDS: Final = 0.5  # after /ready: what a start leaves to be done is done
FIRST: Final = "写一个打印 hello world 的 Python 脚本"
WAITING: Final = "运行 `echo waiting; sleep 60`"
IDLE_MIB, FIRST_MIB, TASK_MIB = 140, 190, 5


class Rounds:
    """Starts a server a round, and gives it tasks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def beray(self) -> list[float]:
        """MiB: idle, after the first task, more of it for each running task, of its sandbox."""
        folder = self._folder / f"data-{next(self._numbers)}"
        server = ServerProcess(folder, max_running_tasks_per_user=RUNNING, max_running_tasks=RUNNING).start()
        assert server.process is not None
        pid = server.process.pid
        try:
            time.sleep(SETTLE_SECONDS)
            idle = resident_mib(pid)
            with BeRayClient(server.base_url, server.register("bench@example.com")) as client:
                *_, last = client.stream_task_updates(client.create_task(FIRST)["id"])
                assert last["status"] == "completed", last
                first, own = resident_mib(pid), _descendants_mib(pid)
                with ThreadPoolExecutor(RUNNING) as pool:
                    list(pool.map(_start_waiting, [client] * RUNNING))
                running = (resident_mib(pid) - first) / RUNNING
                return [idle, first, running, (_descendants_mib(pid) - own) / RUNNING]
        finally:
            server.kill()

    def plain(self) -> list[float]:
        """MiB of the plain server."""
        began = time.perf_counter()
        with running_plain_app(self._folder) as (process, port):
            until("/notes", port, process.pid, began=began)
            return [resident_mib(process.pid)]


def _start_waiting(client: BeRayClient) -> None:
    """Start a task, and see that its command runs."""
    for event in client.stream_task_updates(client.create_task(WAITING)["id"]):
        if event["type"] == "tool.output":
            return
    raise RuntimeError("a task that should wait has ended")


def _descendants_mib(pid: int) -> float:
    """Memory of all processes below one, each page divided by how many have it."""
    children = [
        int(child) for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()
    ]
    return sum(_proportional_mib(child) + _descendants_mib(child) for child in children)


def _proportional_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    """Measure."""
    with Benchmark("memory") as bench:
        rounds = Rounds(bench.folder)
        ours, plain = bench.samples(ROUNDS, rounds.beray, rounds.plain)
        idle, first, running, sandbox = (ours[at::4] for at in range(4))
        bench.compare(
            "memory of a server that never ran a task",
            unit="MiB",
            ours=Side("BeRay", idle),
            other=Side("FastAPI and SQLAlchemy, bare", plain),
            goal=Goal("≤", IDLE_MIB, of="figure"),
        )
        goal = Goal("≤", FIRST_MIB, of="figure")
        bench.note("memory of a server after its first task", unit="MiB", ours=Side("BeRay", first), goal=goal)
        each, goal = f"for each of {RUNNING} running tasks", Goal("≤", TASK_MIB, of="figure")
        bench.note(f"memory of the server {each}", unit="MiB", ours=Side("BeRay", running), goal=goal)
        bench.note(f"memory of the sandbox's processes {each}", unit="MiB", ours=Side("BeRay", sandbox))


if __name__ == "__main__":
    main()
