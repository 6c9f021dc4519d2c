"""How long a server takes from its command to /health and to /ready, and the command line to its help.

Wall time is what people wait for; processor time is what does not change with the machine's other work. A process is
timed from before it is started; whoever asks asks again every few milliseconds.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.measure import Benchmark, Goal, Side, cpu_seconds
from tests.support.server import BERAY, ServerProcess

ROUNDS: Final = 7
HELP_ROUNDS: Final = 15
ASK_SECONDS: Final = 0.005
START_SECONDS: Final = 30.0
UNTIL: Final = ("/health", "/ready")
GOALS: Final = {"/health": 2.0, "/ready": 4.0}
HELP_GOAL: Final = 0.35


class Starts:
    """Starts servers, each on a port of its own; each start gives, for each path, wall time and processor time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def fresh(self) -> list[float]:
        """BeRay on a new data folder."""
        return self._start(self._folder / f"fresh-{next(self._numbers)}")

    def again(self) -> list[float]:
        """BeRay on a data folder that an earlier start has made."""
        return self._start(self._folder / "again")

    def _start(self, data: Path) -> list[float]:
        server = ServerProcess(data, port=free_port())
        began = time.perf_counter()
        server.launch()
        assert server.process is not None
        try:
            return [spent for path in UNTIL for spent in until(path, server.port, server.process.pid, began=began)]
        finally:
            server.kill()

    def plain(self) -> list[float]:
        """The plain server, which has nothing to become ready."""
        began = time.perf_counter()
        with running_plain_app(self._folder) as (process, port):
            return [*until("/health", port, process.pid, began=began)]


@contextmanager
def running_plain_app(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The plain server and its port; it may not answer yet."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.plain_app", str(port), str(folder / f"plain-{port}.db")]
    with subprocess.Popen(command) as process:
        try:
            yield process, port
        finally:
            process.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def until(path: str, port: int, pid: int, *, began: float) -> tuple[float, float]:
    """Seconds since `began`, and of processor time, when `path` answers 200 for the first time."""
    while not _is_ok(path, port):
        if time.perf_counter() > began + START_SECONDS:
            raise RuntimeError(f"no {path} within {START_SECONDS:g} s")
        time.sleep(ASK_SECONDS)
    return time.perf_counter() - began, cpu_seconds(pid)


def _is_ok(path: str, port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:  # it does not listen yet
        return False
    finally:
        connection.close()


def run_to_end(*command: str) -> list[float]:
    """Wall time and processor time of a command to its end, what it says thrown away."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return [time.perf_counter() - began, used.ru_utime + used.ru_stime]


def main() -> None:
    """Measure."""
    with Benchmark("start") as bench:
        starts = Starts(bench.folder)
        for start in (starts.again, starts.plain):  # bytecode is written, files are in the cache
            start()
        fresh, again, plain = bench.samples(ROUNDS, starts.fresh, starts.again, starts.plain, share=0.8)
        _tell_starts(bench, "a new data folder", fresh, plain)
        _tell_starts(bench, "a data folder that was there", again, plain)
        ours, other = bench.samples(
            HELP_ROUNDS, lambda: run_to_end(*BERAY, "--help"), lambda: run_to_end(sys.executable, "-c", "pass")
        )
        goal = Goal("≤", HELP_GOAL, of="figure")
        sides = Sides("`beray --help`", "beray", ours, "python -c pass", other)
        _tell(bench, sides, goal=goal)


@dataclass(frozen=True)
class Sides:
    """Of each round wall time and processor time, one after the other."""

    what: str
    name: str
    ours: Sequence[float]
    other_name: str
    other: Sequence[float]


def _tell_starts(bench: Benchmark, where: str, ours: Sequence[float], plain: Sequence[float]) -> None:
    for number, path in enumerate(UNTIL):
        rounds = [spent for at in range(2 * number, len(ours), 2 * len(UNTIL)) for spent in ours[at : at + 2]]
        sides = Sides(f"`beray serve` until {path}, {where}", "BeRay", rounds, "FastAPI and SQLAlchemy, bare", plain)
        _tell(bench, sides, goal=Goal("≤", GOALS[path], of="figure"))


def _tell(bench: Benchmark, sides: Sides, *, goal: Goal) -> None:
    for at, clock in enumerate(("", ", processor time")):
        bench.compare(
            f"{sides.what}{clock}",
            unit="s",
            ours=Side(sides.name, sides.ours[at::2]),
            other=Side(sides.other_name, sides.other[at::2]),
            goal=None if clock else goal,  # the goals are of the time that people wait
        )


if __name__ == "__main__":
    main()
