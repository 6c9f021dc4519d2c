"""Ten thousand tasks on one server: does its memory stay what it is? It ends after twenty minutes at the latest.

Rules mode and a tool that needs no command, so that the server is what works: a task writes a file, with events,
checkpoint, a stream to its end, and the engine's records. Each leaves rows in the database; in the process none may
leave anything. Where the time is up before all have run, the rows say how many have, and there is no goal: that many
prove nothing.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.measure import Benchmark, Goal, Side, most_seconds, resident_mib
from beray.client import BeRayClient
from tests.support.server import ServerProcess

GOAL: Final = "创建文件 note.txt，内容为 hello"
TASKS: Final = 10_000
EVERY: Final = 1_000  # tasks between two looks
AT_ONCE: Final = 8
LEAST_LOOKS: Final = 4
SPARE_SECONDS: Final = 60  # for the start, and what is under way when the time is up
FLAT_MIB: Final = 6.0  # growth over the last third of the looks; 0.002 MiB a task would be 20 over the whole


class Soak:
    """Runs tasks until there have been enough, or the time is up."""

    def __init__(self, server: ServerProcess) -> None:
        assert server.process is not None
        self.looks: list[float] = []
        self._pid = server.process.pid
        self._base_url = server.base_url
        self._token = server.register("bench@example.com")
        self._numbers = count()
        self._looking = threading.Lock()

    def run(self, seconds: float) -> None:
        """Run them."""
        is_over = threading.Event()
        timer = threading.Timer(seconds, is_over.set)
        timer.daemon = True
        timer.start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(self._run_some, is_over) for _ in range(AT_ONCE)]:
                done.result()
        timer.cancel()

    def _run_some(self, is_over: threading.Event) -> None:
        with BeRayClient(self._base_url, self._token) as client:
            while not is_over.is_set() and (number := next(self._numbers)) <= TASKS:
                if number % EVERY == 0:
                    self._look(number)
                if number < TASKS:
                    _run_one(client)

    def _look(self, number: int) -> None:
        with self._looking:
            self.looks.append(resident_mib(self._pid))
            threads = len(list(Path(f"/proc/{self._pid}/task").iterdir()))
            files = len(list(Path(f"/proc/{self._pid}/fd").iterdir()))
            print(f"  {number:6} tasks: {self.looks[-1]:.1f} MiB, {threads} threads, {files} open files", flush=True)


def _run_one(client: BeRayClient) -> None:
    task = client.create_task(GOAL)
    *_, last = client.stream_task_updates(task["id"])
    assert (last["type"], last["status"]) == ("task.finished", "completed"), last


def main() -> None:
    """Measure."""
    with Benchmark("soak") as bench:
        server = ServerProcess(bench.folder / "data", max_running_tasks_per_user=AT_ONCE).start()
        try:
            soak = Soak(server)
            soak.run(most_seconds("soak") - SPARE_SECONDS)
        finally:
            server.kill()
        if len(soak.looks) < LEAST_LOOKS:
            raise SystemExit(f"only {len(soak.looks)} looks in the time there is")
        _tell(bench, soak.looks)


def _tell(bench: Benchmark, looks: list[float]) -> None:
    last, count = looks[-(len(looks) // 3) - 1 :], (len(looks) - 1) * EVERY
    is_whole = count == TASKS
    tasks = f"{count:,} tasks" if is_whole else f"{count:,} tasks, for want of time not {TASKS:,}"
    if not is_whole:
        bench.skip(f"a soak of {TASKS:,} tasks", f"only {count:,} ran in {most_seconds('soak') // 60} minutes")
    bench.note(
        f"growth of memory over the last {(len(last) - 1) * EVERY:,} of {tasks}",
        unit="MiB",
        ours=Side("BeRay", [last[-1] - last[0]]),
        goal=Goal("≤", FLAT_MIB, of="figure") if is_whole else None,
    )
    bench.note(f"memory after {tasks}", unit="MiB", ours=Side("BeRay", [last[-1]]))


if __name__ == "__main__":
    main()
