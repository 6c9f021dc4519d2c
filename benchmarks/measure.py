"""How every benchmark measures: both sides in one run, rounds in turn, medians, one result file.

    with Benchmark("events") as bench:
        ours, other = bench.rounds(5, measure_ours, measure_other)
        bench.compare("what is measured", unit="events/s", ours=Side("BeRay", ours), other=Side("twin", other))

A benchmark holds a lock, so that two never run at once, and ends itself after `most_seconds`. It prints what it found
and writes it to benchmarks/results/<name>.json; it passes or fails nothing.
"""

import fcntl
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Literal, Self, TypeVar

RESULTS: Final = Path(__file__).parent / "results"
MOST_SECONDS: Final = 60
LONGER: Final = {"soak": 20 * 60}  # seconds that these may take instead
PLANNED_SECONDS: Final = 45  # what is left is for the rounds that must be
LEAST_ROUNDS: Final = 5
LOCK_SECONDS: Final = max(MOST_SECONDS, *LONGER.values()) + 60  # the longest may be at it, and end its servers
SERVER_CORE: Final = 0  # where there are two, servers and what asks them don't share one
LOAD_CORE: Final = 1
PACKAGES: Final = (
    "aiohttp",
    "aiosqlite",
    "dbos",
    "fastapi",
    "httptools",
    "httpx-sse",
    "launchdarkly-eventsource",
    "msgspec",
    "openai",
    "orjson",
    "psycopg",
    "pydantic-ai-slim",
    "requests",
    "sqlalchemy",
    "sse-starlette",
    "starlette",
    "uvicorn",
    "uvloop",
)


T = TypeVar("T")


class TooLong(BaseException):
    """A benchmark took more than its time; it ends everything, hence no Exception."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a name, what each round gave, and which part of the rounds is below its figure."""

    name: str
    rounds: Sequence[float]
    share: float = 0.5

    @property
    def figure(self) -> float:
        """The median of the rounds, or another quantile."""
        if self.share == 0.5:
            return statistics.median(self.rounds)
        return statistics.quantiles(self.rounds, n=100, method="inclusive")[round(self.share * 100) - 1]

    def at(self, share: float) -> "Side":
        """The same rounds, another quantile."""
        return replace(self, share=share)


@dataclass(frozen=True)
class Goal:
    """What the ratio should be, or the difference, or our figure alone: at least, or at most, `value`."""

    kind: Literal["≥", "≤"]
    value: float
    of: Literal["ratio", "difference", "figure"] = "ratio"

    def is_met(self, ours: float, other: float = 0.0) -> bool:
        """Whether the figures are as they should be."""
        found = {"ratio": ours / (other or 1.0), "difference": ours - other, "figure": ours}[self.of]
        return found >= self.value if self.kind == "≥" else found <= self.value

    def shown(self, unit: str) -> str:
        """For people: a difference has its sign and unit, a figure its unit."""
        if self.of == "ratio":
            return f"{self.kind} {self.value:g}"
        return f"{self.kind} {'+' if self.of == 'difference' else ''}{self.value:g} {unit}"


class Benchmark:
    """One run of one benchmark: the lock, the deadline, a folder of its own, and what was found.

    Attributes:
        others: Versions of what is measured and is no package.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}
        self.others: dict[str, str] = {}
        self._stack = ExitStack()
        self._started_at = 0.0

    def __enter__(self) -> Self:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]  # nothing may leave loopback
        self._stack.enter_context(_Lock())
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="beray-bench-")))
        self.folder.chmod(0o711)  # the uids of sandboxes must be able to pass
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(most_seconds(self.name))
        self._started_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.alarm(0)
        self._stack.close()
        if error is None:
            self._write()

    def rounds(self, count: int, *measures: Callable[[], float], share: float = 1.0) -> list[list[float]]:
        """Measure each side once a round, in turn, so that what disturbs the machine disturbs both.

        Args:
            count: How many rounds; on a slow machine fewer, but at least LEAST_ROUNDS.
            measures: What gives one round's figure, for each side.
            share: Part of the benchmark's time that may have gone by before rounds are left out.
        """
        return self.samples(count, *(_one(measure) for measure in measures), share=share)

    def samples(self, count: int, *measures: Callable[[], Sequence[T]], share: float = 1.0) -> list[list[T]]:
        """Like `rounds`, for measures that give several figures a round: all of them."""
        results: list[list[T]] = [[] for _ in measures]
        for done in range(count):
            if done >= LEAST_ROUNDS and self.is_late(share):
                break
            for result, measure in zip(results, measures, strict=True):
                result.extend(measure())
        return results

    def is_late(self, share: float) -> bool:
        """Whether more than this part of the benchmark's time has gone by."""
        return time.monotonic() - self._started_at > share * PLANNED_SECONDS

    def compare(self, what: str, *, unit: str, ours: Side, other: Side, goal: Goal | None = None) -> None:
        """Note and print a comparison; the ratio is ours to the other's."""
        ratio = ours.figure / other.figure
        entry = {
            "what": what,
            "unit": unit,
            "ours": _shown(ours),
            "other": _shown(other),
            "ratio": ratio,
            "goal": None if goal is None else goal.shown(unit),
            "is_met": None if goal is None else goal.is_met(ours.figure, other.figure),
        }
        self.found.append(entry)
        print(f"{what}\n  {ours.name}: {figure(ours.figure)} {unit}")
        print(f"  {other.name}: {figure(other.figure)} {unit}\n  ratio {ratio:.2f}{_verdict(entry)}", flush=True)

    def note(self, what: str, *, unit: str, ours: Side, goal: Goal | None = None) -> None:
        """Note and print a figure that has no other side."""
        entry = {
            "what": what,
            "unit": unit,
            "ours": _shown(ours),
            "other": None,
            "ratio": None,
            "goal": None if goal is None else goal.shown(unit),
            "is_met": None if goal is None else goal.is_met(ours.figure),
        }
        self.found.append(entry)
        print(f"{what}\n  {ours.name}: {figure(ours.figure)} {unit}{_verdict(entry)}", flush=True)

    def skip(self, side: str, reason: str) -> None:
        """Note and print that a side is not measured, and why."""
        self.skipped[side] = reason
        print(f"skipped: {side}: {reason}", flush=True)

    def _write(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        result = {
            "name": self.name,
            "command": f"uv run --group bench python -m benchmarks.{self.name}",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started_at, 1),
            "machine": machine(),
            "versions": versions() | self.others,
            "found": self.found,
            "skipped": self.skipped,
        }
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{result['seconds']} s, written to {path.relative_to(Path(__file__).parent.parent)}", flush=True)


def _one(measure: Callable[[], float]) -> Callable[[], Sequence[float]]:
    return lambda: [measure()]


def most_seconds(name: str) -> int:
    """How long a benchmark may take."""
    return LONGER.get(name, MOST_SECONDS)


def figure(value: float) -> str:
    """A number for people: three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process have used so far; /proc has it in steps of 10 ms only."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python has for threads alone


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started within the block runs on this core alone, where there are so many."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def resident_mib(pid: int) -> float:
    """Memory of a process that is in RAM now, MiB; what it shares with others too."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def machine() -> dict[str, Any]:
    """Where this runs, and what else ran on it."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    df = ["df", "--output=fstype", tempfile.gettempdir()]
    kind = subprocess.run(df, capture_output=True, text=True, check=True).stdout.split()[-1]
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / (1 << 20)),
        "kernel": platform.release(),
        "filesystem": kind,
        "load_1m": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """What was measured, and with what."""
    own = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "beray": _commit()}
    return own | {name: version(name) for name in PACKAGES}


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or version("beray")


def _shown(side: Side) -> dict[str, Any]:
    return {"name": side.name, "figure": side.figure, "rounds": list(side.rounds)}


def _verdict(entry: dict[str, Any]) -> str:
    if entry["is_met"] is None:
        return ""
    return f" (goal {entry['goal']}: {'met' if entry['is_met'] else 'FALLS SHORT'})"


class _Lock:
    """Held by one benchmark of this user at a time; the others wait their turn, for at most LOCK_SECONDS."""

    def __enter__(self) -> None:
        path = Path(tempfile.gettempdir()) / f"beray-bench-{os.getuid()}.lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"another benchmark holds {path}"))
        signal.alarm(LOCK_SECONDS)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        signal.alarm(0)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise TooLong("the benchmark took more than its time")
