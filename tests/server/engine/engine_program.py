"""Cases of `test_engine.py`, each in a process of its own. Reports JSON on the last line of stdout."""

import asyncio
import json
import os
import sys
import threading
from collections import Counter
from typing import Any
from unittest.mock import patch

from dbos import DBOS
from sqlalchemy import URL, make_url, text

from beray.server.clock import system_clock
from beray.server.db import processes
from beray.server.db.processes import Process
from beray.server.engine.base import Displaced
from beray.server.engine.dbos_queue import DbosQueue
from beray.server.engine.dbos_worker import DbosWorker
from tests.support.databases import migrated
from tests.support.waiting import until

DEADLINE_SECONDS = 30


class Bench:
    """An engine with a run that the case describes."""

    def __init__(self, url: URL, run_task: Any, *, executor_id: str = "local", **limits: int) -> None:
        self.database = migrated(url)
        self.database.deliver = lambda notices: self.engine.wake()
        self.database.open()
        limits = {"per_user": 3, "per_process": 8, **limits}
        self.engine = DbosWorker(url, run_task, executor_id=executor_id, **limits)

    async def submit(self, task_id: int, *, user_id: int = 1) -> None:
        def query(connection: Any) -> None:
            self.engine.submit(connection, task_id=task_id, run=1, user_id=user_id)

        await self.database.write(query)

    async def unfinished(self) -> int:
        """Runs whose end the engine has not recorded."""
        query = text(f"SELECT count(*) FROM {self.table('workflow_status')} WHERE status IN ('PENDING', 'ENQUEUED')")
        return int(await self.database.read(lambda connection: connection.execute(query).scalar_one()))

    async def unfinished_is(self, count: int) -> bool:
        return await self.unfinished() == count

    def table(self, name: str) -> str:
        """A table of the engine's library."""
        return f"dbos.{name}" if self.database.is_shared else name

    async def all_recorded(self) -> None:
        """Wait until the engine has recorded the end of every run."""

        async def is_none_left() -> bool:
            return await self.unfinished() == 0

        await until(is_none_left, what="the end of every run")

    async def finish(self) -> None:
        """Let every run end, then close."""
        await self.all_recorded()
        await self.close()

    async def close(self) -> None:
        await self.engine.close()
        self.database.close()


class Record:
    """What happened."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.hanging = asyncio.Event()
        self.ended = asyncio.Event()


def recorded(record: Record, *, hangs: bool = False) -> Any:
    """A run that ends at once, or, if it is the first, never."""

    async def run_task(task_id: int, run: int) -> None:
        record.runs.append([task_id, run])
        if hangs and not record.hanging.is_set():
            record.hanging.set()
            await asyncio.Event().wait()
        record.ended.set()

    return run_task


async def simple(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.finish()
    return {"runs": record.runs}


async def rollback(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()

    def fail(connection: Any) -> None:
        bench.engine.submit(connection, task_id=1, run=1, user_id=1)
        raise ValueError("rolled back")

    try:
        await bench.database.write(fail)
    except ValueError:
        await bench.submit(2)
    await record.ended.wait()
    await bench.finish()
    return {"runs": record.runs}


async def unfinished(url: URL, *, is_killed: bool) -> Any:
    record = Record()
    bench = Bench(url, recorded(record, hangs=True))
    await bench.engine.start()
    await bench.submit(1)
    await record.hanging.wait()
    if is_killed:
        print(json.dumps({"runs": record.runs}), flush=True)
        os.kill(os.getpid(), 9)
    await bench.close()
    return {"runs": record.runs}


async def goes_on(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    await record.ended.wait()
    await bench.finish()
    return {"runs": record.runs}


async def idle(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    left = await bench.unfinished()
    await bench.close()
    assert left == 0
    return {"runs": record.runs}


async def concurrency(url: URL) -> Any:
    now: Counter[int] = Counter()
    most_of_user, most, done = 0, 0, 0
    ended = asyncio.Event()
    full = asyncio.Event()

    async def run_task(task_id: int, run: int) -> None:
        nonlocal most_of_user, most, done
        user = task_id // 100
        now[user] += 1
        most_of_user, most = max(most_of_user, now[user]), max(most, now.total())
        if now.total() >= 3:
            full.set()
        await full.wait()
        now[user] -= 1
        done += 1
        if done == 8:
            ended.set()

    bench = Bench(url, run_task, per_user=2, per_process=3)
    await bench.engine.start()
    for number in range(4):
        await bench.submit(100 + number, user_id=1)
        await bench.submit(200 + number, user_id=2)
    await ended.wait()
    await bench.finish()
    return {"most_of_user": most_of_user, "most": most, "done": done}


async def purge(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.all_recorded()
    await bench.engine.purge(1, 1)
    query = text(f"SELECT count(*) FROM {bench.table('workflow_status')}")
    left = await bench.database.read(lambda connection: connection.execute(query).scalar())
    await bench.close()
    return {"left": left}


async def failure(url: URL) -> Any:
    record = Record()
    second = asyncio.Event()

    async def run_task(task_id: int, run: int) -> None:
        record.runs.append([task_id, run])
        if task_id == 1:
            raise ValueError("this run fails")
        second.set()

    bench = Bench(url, run_task)
    await bench.engine.start()
    await bench.submit(1)
    await bench.submit(2)
    await second.wait()
    await bench.finish()
    return {"runs": sorted(record.runs)}


async def launched_again(url: URL) -> Any:
    """The first launch fails early, the second late; the third works."""
    record = Record()
    bench = Bench(url, recorded(record))
    failures = []
    launch = DBOS.launch

    def fail_late() -> None:
        launch()
        raise OSError("no room late")

    for name, fail in (("migrate", OSError("no room early")), ("launch", fail_late)):
        with patch.object(DBOS, name, side_effect=fail):
            try:
                await bench.engine.start()
            except OSError as error:
                failures.append(str(error))
    threads = [thread.name for thread in threading.enumerate() if "queue_thread" in thread.name]
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.finish()
    return {"failures": failures, "threads": threads, "runs": record.runs}


async def another_process_hangs(url: URL) -> Any:
    """A process of its own, not "local", that is killed while its run hangs."""
    record = Record()
    bench = Bench(url, recorded(record, hangs=True), executor_id="dead-process")
    await bench.engine.start()
    await bench.submit(1)
    await record.hanging.wait()
    print(json.dumps({"runs": record.runs}), flush=True)
    os.kill(os.getpid(), 9)


async def takes_over(url: URL) -> Any:
    """Nothing is run that another process holds, until it is known to be dead."""
    record = Record()
    bench = Bench(url, recorded(record), executor_id="heir")
    await bench.engine.start()
    await say_alive(bench, "dead-process", is_alive=True)
    await say_alive(bench, "heir", is_alive=True)
    left_to_the_living = await bench.engine.recover_dead()
    is_running = await bench.engine.is_running(1, 1)
    runs_before = list(record.runs)

    await say_alive(bench, "dead-process", is_alive=False)
    is_running_in_the_dead = await bench.engine.is_running(1, 1)
    left = [await bench.engine.recover_dead(), await bench.engine.recover_dead()]
    await record.ended.wait()
    await bench.all_recorded()
    query = text("SELECT id FROM process ORDER BY id")
    processes = await bench.database.read(lambda connection: list(connection.execute(query).scalars()))
    await bench.close()
    return {
        "before": [left_to_the_living, is_running, runs_before],
        "after": [left, is_running_in_the_dead],
        "runs": record.runs,
        "processes": processes,
    }


async def stray_takeover(url: URL) -> Any:
    """Somebody takes a living run from its process, which claims it again: once, not over and over."""
    record = Record()
    looks = 0
    requeue_lost = DbosWorker._requeue_lost

    def counted(self: DbosWorker) -> None:
        nonlocal looks
        requeue_lost(self)
        looks += 1

    with patch("beray.server.engine.dbos_worker.LOST_SECONDS", 0.1), patch.object(DbosWorker, "_requeue_lost", counted):
        bench = Bench(url, recorded(record, hangs=True), executor_id="victim")
        await bench.engine.start()
        await bench.submit(1)
        await record.hanging.wait()
        take = text("UPDATE dbos.workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL")
        await bench.database.write(lambda connection: connection.execute(take) and None)
        bench.engine.wake()
        await until(lambda: len(record.runs) == 2, what="the second start")
        seen = looks
        await until(lambda: looks >= seen + 5, what="five looks")
        runs = list(record.runs)
        await bench.close()
    return {"runs": runs}


async def displaced(url: URL) -> Any:
    """A run whose attempt was displaced is not over: it is taken up again."""
    runs: list[int] = []
    ended = asyncio.Event()

    async def run_task(task_id: int, run: int) -> None:
        runs.append(task_id)
        if len(runs) == 1:
            raise Displaced
        ended.set()

    with patch("beray.server.engine.dbos_worker.LOST_SECONDS", 0.1):
        bench = Bench(url, run_task)
        await bench.engine.start()
        await bench.submit(1)
        await ended.wait()
        await bench.finish()
    return {"runs": runs}


async def say_alive(bench: Bench, process_id: str, *, is_alive: bool) -> None:
    """As its heartbeat would, now or half a minute ago."""
    age = 0 if is_alive else 30_000

    def query(connection: Any) -> None:
        processes.beat(connection, Process(process_id, "worker", "host", 1, "0"), "{}")
        connection.execute(
            text("UPDATE process SET beat_at = beat_at - :age WHERE id = :id"), {"age": age, "id": process_id}
        )

    await bench.database.write(query)


async def cut_and_go_on(url: URL) -> Any:
    """What a fenced process does: it lets go of its run, claims nothing, and takes it up again later."""
    record = Record()
    bench = Bench(url, recorded(record, hangs=True), executor_id="fenced")
    await bench.engine.start()
    await say_alive(bench, "fenced", is_alive=True)
    await bench.submit(1)
    await record.hanging.wait()
    await bench.engine.cut()
    await bench.submit(2)
    claimed = await bench.database.read(lambda connection: connection.execute(text(CLAIMED)).scalar_one())
    runs_when_cut = list(record.runs)

    await bench.engine.go_on()
    await until(lambda: len(record.runs) >= 3, what="both runs")
    runs_after = sorted(record.runs[1:])
    await bench.close()
    return {"cut": [runs_when_cut, claimed], "after": runs_after}


CLAIMED = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING' AND workflow_uuid = '2.1'"


async def fair(url: URL) -> Any:
    """Two places, of which one becomes free; a user with many waiting, and one with one."""
    order: list[int] = []
    go = asyncio.Event()
    has_other = asyncio.Event()

    async def run_task(task_id: int, run: int) -> None:
        order.append(task_id // 100)
        if len(order) == 3:
            has_other.set()
        await (has_other if len(order) == 2 else go).wait()  # both free at once would be a tie

    bench = Bench(url, run_task, per_user=3, per_process=2)
    await bench.engine.start()
    for number in range(6):
        await bench.submit(100 + number, user_id=1)
    await until(lambda: len(order) == 2, what="the first runs")
    await bench.submit(200, user_id=2)
    go.set()
    await bench.finish()
    return {"place_of_the_other": order.index(2)}


async def other_version(url: URL) -> Any:
    """Runs that an application of another version has queued, or holds, are left alone."""
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    with patch("beray.server.engine.dbos_queue.APPLICATION_VERSION", "agent-of-the-future"):
        await bench.submit(1)
    await bench.submit(2)
    await record.ended.wait()
    await until(lambda: bench.unfinished_is(1), what="the end of the run of this version")
    await bench.close()
    return {"runs": record.runs}


async def claimed_alike(url: URL) -> Any:
    """Two runs, one claimed as where there is one process only, the other by the library."""
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    bench.engine.pause(True)
    await bench.submit(1)
    await bench.submit(2)
    ids = [*bench.engine._claim_alone("1", "token"), *(bench.engine._claim_shared("1", "token") or ())]
    query = text("SELECT * FROM workflow_status WHERE workflow_uuid = :id")
    rows = []
    for run_id in ids:
        row = await bench.database.read(
            lambda connection, i=run_id: connection.execute(query, {"id": i}).mappings().one()
        )
        rows.append({name: type(value).__name__ if name in VARYING else value for name, value in row.items()})
    await bench.close()
    return {"claimed": ids, "differences": [name for name in rows[0] if rows[0][name] != rows[1][name]]}


VARYING = {"workflow_uuid", "creator_xid", "created_at", "updated_at", "started_at_epoch_ms", "retention_timestamp"}


async def queue_only(url: URL) -> Any:
    """The engine of a process that runs nothing."""
    database = migrated(url)
    database.open()
    queue = DbosQueue(url)
    await queue.start()
    await database.write(lambda connection: queue.submit(connection, task_id=1, run=1, user_id=1))
    is_running = await queue.is_running(1, 1)
    await queue.close()
    await asyncio.to_thread(database.close)
    return {"is_running": is_running}


async def old_runs(url: URL) -> Any:
    record = Record()
    bench = Bench(url, recorded(record))
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.all_recorded()
    now = system_clock()
    purged = [await bench.engine.purge_ended(now - 3_600_000), await bench.engine.purge_ended(now + 60_000)]
    await bench.close()
    return {"purged": purged}


CASES = {
    "simple": simple,
    "rollback": rollback,
    "unfinished-kill": lambda url: unfinished(url, is_killed=True),
    "unfinished-close": lambda url: unfinished(url, is_killed=False),
    "continue": goes_on,
    "idle": idle,
    "concurrency": concurrency,
    "purge": purge,
    "failure": failure,
    "launched-again": launched_again,
    "another-process-hangs": another_process_hangs,
    "takes-over": takes_over,
    "stray-takeover": stray_takeover,
    "displaced": displaced,
    "cut-and-go-on": cut_and_go_on,
    "fair": fair,
    "other-version": other_version,
    "old-runs": old_runs,
    "claimed-alike": claimed_alike,
    "queue-only": queue_only,
}


async def _report(case: str, url: URL) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        print(json.dumps(await CASES[case](url)), flush=True)


def main() -> int:
    """Run the case that is named, on the database that is named."""
    asyncio.run(_report(sys.argv[1], make_url(sys.argv[2])))
    return 0
