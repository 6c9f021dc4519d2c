"""The engine on both databases: how soon a queued run starts, and how many it runs.

    python -m benchmarks.engine         # measures
    python -m benchmarks.engine URL     # one side: measures what standard input asks for, and ends with it

The real `DbosWorker` on a database of its own. The engine's library is one per process, so each database has a process,
and they are asked in turn. From the commit that queues a run to the run's first line:

- wake: the process that committed runs it.
- NOTIFY: another connection committed it, as an API process beside a worker does. PostgreSQL only.
- poll alone: nobody is woken; submitted at a random moment of the poll's interval.

Beside it `bare.py` commits rows in the same process, with nothing around it.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from sqlalchemy import URL, make_url

from benchmarks.bare import bare_name, insert_ms, inserts_per_second, open_bare, postgres_version
from benchmarks.measure import Benchmark, Side
from beray.server.db.connect import Database
from beray.server.db.notices import Notice
from beray.server.db.open import make_database
from beray.server.engine.dbos_worker import POLL_SECONDS, DbosWorker
from tests.support.databases import migrated, sqlite_url
from tests.support.postgres import DURABLE, PostgresCluster

ROUNDS = 9
WOKEN = 4  # starts by wake a round, for one by the poll, which takes long
RUNS = 16
INSERTS_SECONDS = 0.25
START_SECONDS = 10.0
ANSWER_SECONDS = 30.0

RunBody = Callable[[], Awaitable[None]]


class WorkerSide:
    """A database with a worker on it, in this process."""

    def __init__(self, url: URL) -> None:
        self._bodies: dict[int, RunBody] = {}
        self._last_id = 0
        self._is_woken = True
        self._committed_at = 0.0
        self._database = migrated(url)
        self._outside = make_database(url) if self._database.is_shared else self._database
        self._worker = DbosWorker(url, self._run_task, per_user=RUNS, per_process=RUNS)
        self._bare = open_bare(url)
        self._measures: dict[str, Callable[[], Awaitable[list[float]]]] = {
            "wake": partial(self._measure_starts, self._database, count=WOKEN),
            "notify": partial(self._measure_starts, self._outside, count=WOKEN),
            "poll": partial(self._measure_starts, self._database, is_woken=False),
            "insert": self._measure_inserts,
            "runs": self._measure_runs,
            "inserts": self._measure_insert_rate,
        }

    async def serve(self) -> None:
        """Answer each line of standard input by a line of JSON."""
        self._database.open()
        self._database.deliver = self._hear
        if self._outside is not self._database:
            self._outside.open()
            self._outside.deliver = self._note_commit
        await self._worker.start()
        try:
            while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
                print(json.dumps(await self._measures[what]()), flush=True)
        finally:
            await self._worker.close()
            self._outside.close()
            self._database.close()

    def _hear(self, notices: Sequence[Notice]) -> None:
        self._note_commit(notices)
        if self._is_woken:
            self._worker.wake()

    def _note_commit(self, notices: Sequence[Notice]) -> None:
        self._committed_at = self._committed_at or time.perf_counter()  # the first who knows of it

    async def _run_task(self, task_id: int, run: int) -> None:
        await self._bodies.pop(task_id)()

    async def _submit(self, database: Database, body: RunBody) -> None:
        self._last_id += 1
        task_id = self._last_id
        self._bodies[task_id] = body
        await database.write(lambda connection: self._worker.submit(connection, task_id=task_id, run=1, user_id=1))

    async def _measure_starts(self, database: Database, *, is_woken: bool = True, count: int = 1) -> list[float]:
        """Milliseconds from the commit to the start."""
        found = []
        for _ in range(count):
            await asyncio.sleep(random.uniform(0.02, 0.06 if is_woken else POLL_SECONDS))
            self._is_woken, self._committed_at = is_woken, 0.0
            started: asyncio.Future[float] = asyncio.get_running_loop().create_future()

            async def note_start(started: asyncio.Future[float] = started) -> None:
                started.set_result(time.perf_counter())

            await self._submit(database, note_start)
            found.append((await asyncio.wait_for(started, START_SECONDS) - self._committed_at) * 1000)
            self._is_woken = True
        return found

    async def _measure_runs(self) -> list[float]:
        """Runs per second that do nothing, from the first one's submission to the last one's body; many at once."""
        ended: asyncio.Queue[float] = asyncio.Queue()

        async def end() -> None:
            ended.put_nowait(time.perf_counter())

        began = time.perf_counter()
        await asyncio.gather(*(self._submit(self._database, end) for _ in range(RUNS)))
        ends = [await asyncio.wait_for(ended.get(), START_SECONDS) for _ in range(RUNS)]
        return [RUNS / (max(ends) - began)]

    async def _measure_inserts(self) -> list[float]:
        return [insert_ms(self._bare) for _ in range(WOKEN)]

    async def _measure_insert_rate(self) -> list[float]:
        return [inserts_per_second(self._bare, seconds=INSERTS_SECONDS)]


class Asked:
    """A side in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", url: URL) -> None:
        self._process = process
        self.name = "SQLite" if url.get_backend_name() == "sqlite" else "PostgreSQL"
        self.bare = bare_name(url)

    def ask(self, what: str) -> list[float]:
        """What it measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer: list[float] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def asked(url: URL) -> Iterator[Asked]:
    """A side, for as long as the block lasts."""
    command = [sys.executable, "-m", "benchmarks.engine", url.render_as_string(hide_password=False)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Asked(process, url)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(ANSWER_SECONDS)
        finally:
            process.kill()


def main() -> None:
    """Measure."""
    if len(sys.argv) > 1:
        asyncio.run(WorkerSide(make_url(sys.argv[1])).serve())
        return
    with Benchmark("engine") as bench:
        cluster = PostgresCluster(bench.folder / "postgres", settings=DURABLE).start()
        try:
            url = make_url(cluster.create_database("bench"))
            bench.others["PostgreSQL"] = postgres_version(url)
            with asked(sqlite_url(bench.folder / "beray.db")) as sqlite, asked(url) as postgres:
                _measure(bench, (sqlite, postgres))
        finally:
            cluster.stop()


def _measure(bench: Benchmark, sides: Sequence[Asked]) -> None:
    questions = [
        (side, what)
        for what in ("insert", "wake", "notify", "poll", "inserts", "runs")
        for side in sides
        if what != "notify" or side.name == "PostgreSQL"
    ]
    for side, what in questions:  # the first of each warms up
        side.ask(what)
    found = bench.samples(ROUNDS, *(partial(side.ask, what) for side, what in questions))
    samples = {(side.name, what): values for (side, what), values in zip(questions, found, strict=True)}
    for side in sides:
        _compare(bench, side, {what: values for (name, what), values in samples.items() if name == side.name})


def _compare(bench: Benchmark, side: Asked, samples: dict[str, list[float]]) -> None:
    starts = f"{side.name}: commit → run starts"
    woken = Side("wake", samples["wake"])
    poll = Side(f"poll alone, every {POLL_SECONDS:g} s", samples["poll"])
    bench.compare(f"{starts}, p50", unit="ms", ours=woken, other=poll)
    insert = Side(f"{side.bare}, a row and its commit", samples["insert"])
    bench.compare(f"{starts}, p50", unit="ms", ours=woken, other=insert)
    bench.compare(f"{starts}, p95", unit="ms", ours=woken.at(0.95), other=insert.at(0.95))
    if "notify" in samples:
        notify = Side("NOTIFY, committed elsewhere", samples["notify"])
        bench.compare(f"{starts}, p50", unit="ms", ours=notify, other=insert)
        bench.compare(f"{starts}, p95", unit="ms", ours=notify.at(0.95), other=insert.at(0.95))
    rate = Side(f"{side.bare}, a commit per row", samples["inserts"])
    runs = Side("runs that do nothing", samples["runs"])
    bench.compare(f"{side.name}: runs, {RUNS} queued at once", unit="per second", ours=runs, other=rate)


if __name__ == "__main__":
    main()
