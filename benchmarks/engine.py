"""The engine: from the commit that queues a run to its start, by `wake` and by the poll alone.

The real `DbosWorker` on a database of its own, a run that does nothing, one at a time; each submission at a random
moment of the poll's interval.
"""

import asyncio
import random
import time
from pathlib import Path

from beray.server.engine.dbos_engine import POLL_SECONDS, DbosWorker

from benchmarks.measure import Benchmark, Side
from beray.server.db import migrate
from beray.server.db.sqlite import SqliteDatabase, sqlite_engine
from beray.server.engine.base import Step

ROUNDS = 25
START_SECONDS = 10.0


class Starts:
    """When runs started."""

    def __init__(self) -> None:
        self.at: dict[int, asyncio.Future[float]] = {}

    async def run_task(self, task_id: int, run: int, step: Step) -> None:
        """The run: does nothing."""
        self.at[task_id].set_result(time.perf_counter())


def main() -> None:
    """Measure."""
    with Benchmark("engine") as bench:
        woken, polled = asyncio.run(_measure(bench.folder / "beray.db"))
        bench.compare(
            f"commit → run starts (poll every {POLL_SECONDS:g} s)",
            unit="ms",
            ours=Side("wake", woken),
            other=Side("poll alone", polled),
        )


async def _measure(path: Path) -> tuple[list[float], list[float]]:
    schema = sqlite_engine(path)
    migrate.upgrade(schema)
    schema.dispose()
    starts = Starts()
    database = SqliteDatabase(path)
    database.open()
    engine = DbosWorker(path, starts.run_task, per_user=3, per_process=16)
    await engine.start()
    results: dict[bool, list[float]] = {True: [], False: []}
    try:
        for number in range(2 * ROUNDS + 2):
            is_woken = number % 2 == 0
            await asyncio.sleep(random.uniform(0, POLL_SECONDS))
            elapsed = await _start_one(number + 1, is_woken, (starts, database, engine))
            if number >= 2:  # the first of each kind warms up
                results[is_woken].append(elapsed)
    finally:
        await engine.close()
        database.close()
    return results[True], results[False]


async def _start_one(task_id: int, is_woken: bool, parts: tuple[Starts, SqliteDatabase, DbosWorker]) -> float:
    """Milliseconds from the commit to the start."""
    starts, database, engine = parts
    started = starts.at[task_id] = asyncio.get_running_loop().create_future()
    await database.write(lambda connection: engine.submit(connection, task_id=task_id, run=1, user_id=1))
    committed_at = time.perf_counter()
    if is_woken:
        engine.wake()
    started_at: float = await asyncio.wait_for(started, START_SECONDS)
    return (started_at - committed_at) * 1000


if __name__ == "__main__":
    main()
