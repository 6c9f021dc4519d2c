"""Attempts at a bench's task in processes of their own, which `kill -9` themselves at a point of their work.

They come from a fork server that has loaded the model library once, so that one costs little more than its work.
"""

import asyncio
import json
import multiprocessing
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.run import Outcome
from tests.support.agent_bench import open_bench

MOST_SECONDS = 60
PRELOADED = [
    "beray.server.agent.turn",
    "beray.server.agent.models.providers",
    "tests.support.dying_process",
    "genai_prices.data",  # these three are loaded by the first request
    "openai.resources.chat",
    "anyio._backends._asyncio",
]
POINTS_FILE = "points.json"
OUTCOME_FILE = "outcome.json"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Attempt:
    """One process' work.

    Attributes:
        dies_at: Number of the point, counted from 1, at which it is killed; None: it lives.
    """

    root: Path
    python: str | None
    goal: str
    model: ModelChoice
    dies_at: int | None = None


class KillAt:
    """Before and after each commit there is a point; at the one with this number the process is gone."""

    def __init__(self, number: int | None) -> None:
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self._number = number

    def __call__(self, when: str, types: tuple[str, ...]) -> None:
        self.seen.append((when, types))
        if len(self.seen) == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


async def attempt(work: Attempt) -> int | None:
    """Run it to its end; the process' exit code, which is -9 if it was killed."""
    process = _context.Process(target=_main, args=(work,))
    process.start()
    try:
        await asyncio.to_thread(process.join, MOST_SECONDS)
        return process.exitcode
    finally:
        process.kill()
        process.join()
        process.close()


def outcome_of(root: Path) -> Outcome:
    """How the run ended, as the attempt that ended it has told."""
    return Outcome(**json.loads((root / OUTCOME_FILE).read_text()))


def points_of(root: Path) -> list[Any]:
    """The points that an attempt which lived has passed."""
    points: list[Any] = json.loads((root / POINTS_FILE).read_text())
    return points


def _main(work: Attempt) -> None:
    asyncio.run(_run(work))


async def _run(work: Attempt) -> None:
    bench = open_bench(work.root, python=work.python)
    bench.crash = points = KillAt(work.dies_at)
    try:
        outcome = await bench.run(work.goal, model=work.model)
    finally:
        await bench.sandbox.close()
        bench.database.close()
    (work.root / POINTS_FILE).write_text(json.dumps(points.seen))
    (work.root / OUTCOME_FILE).write_text(json.dumps(asdict(outcome)))
