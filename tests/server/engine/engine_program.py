"""Cases of `test_engine.py`, each in a process of its own. Reports JSON on the last line of stdout."""

import asyncio
import json
import os
import sqlite3
import sys
import threading
from collections import Counter
from typing import Any
from unittest.mock import patch

from dbos import DBOS
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import OperationalError

from beray.server.engine.dbos_worker import DbosWorker
from tests.support.databases import migrated
from tests.support.waiting import until

DEADLINE_SECONDS = 30


class Bench:
    """An engine with a run that the case describes."""

    def __init__(self, url: URL, run_task: Any, *, per_user: int = 3, per_process: int = 8) -> None:
        self.database = migrated(url)
        self.database.deliver = lambda notices: self.engine.wake()
        self.database.open()
        self.engine = DbosWorker(url, run_task, per_user=per_user, per_process=per_process)

    async def submit(self, task_id: int, *, user_id: int = 1) -> None:
        def query(connection: Any) -> None:
            self.engine.submit(connection, task_id=task_id, run=1, user_id=user_id)

        await self.database.write(query)

    async def unfinished(self) -> int:
        """Runs whose end the engine has not recorded."""
        query = text(f"SELECT count(*) FROM {self.table('workflow_status')} WHERE status IN ('PENDING', 'ENQUEUED')")
        return int(await self.database.read(lambda connection: connection.execute(query).scalar_one()))

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
        self.steps: list[str] = []
        self.results: list[Any] = []
        self.ended = asyncio.Event()


def turns(record: Record, count: int, *, hang_at: int | None = None, hanging: asyncio.Event | None = None) -> Any:
    async def run_task(task_id: int, run: int, step: Any) -> None:
        record.runs.append([task_id, run])
        for number in range(count):

            async def turn(number: int = number) -> dict[str, int]:
                record.steps.append(f"turn-{number}")
                if number == hang_at and hanging is not None:
                    hanging.set()
                    await asyncio.Event().wait()
                return {"n": number}

            record.results.append(await step(f"turn-{number}", turn))
        record.ended.set()

    return run_task


async def simple(url: URL) -> Any:
    record = Record()
    bench = Bench(url, turns(record, 2))
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.finish()
    return {"runs": record.runs, "steps": record.steps, "results": record.results}


async def rollback(url: URL) -> Any:
    record = Record()
    bench = Bench(url, turns(record, 1))
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
    record, hanging = Record(), asyncio.Event()
    bench = Bench(url, turns(record, 3, hang_at=1, hanging=hanging))
    await bench.engine.start()
    await bench.submit(1)
    await hanging.wait()
    if is_killed:
        print(json.dumps({"steps": record.steps}), flush=True)
        os.kill(os.getpid(), 9)
    await bench.close()
    return {"steps": record.steps}


async def goes_on(url: URL) -> Any:
    record = Record()
    bench = Bench(url, turns(record, 3))
    await bench.engine.start()
    await record.ended.wait()
    await bench.finish()
    return {"runs": record.runs, "steps": record.steps, "results": record.results}


async def idle(url: URL) -> Any:
    record = Record()
    bench = Bench(url, turns(record, 1))
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

    async def run_task(task_id: int, run: int, step: Any) -> None:
        nonlocal most_of_user, most, done
        user = task_id // 100
        now[user] += 1
        most_of_user, most = max(most_of_user, now[user]), max(most, now.total())
        if now.total() >= 3:
            full.set()
        await full.wait()
        await step("turn-0", nothing)
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
    bench = Bench(url, turns(record, 2))
    await bench.engine.start()
    await bench.submit(1)
    await record.ended.wait()
    await bench.all_recorded()
    await bench.engine.purge(1, 1)
    runs, steps = bench.table("workflow_status"), bench.table("operation_outputs")
    query = text(f"SELECT (SELECT count(*) FROM {runs}) + (SELECT count(*) FROM {steps})")
    left = await bench.database.read(lambda connection: connection.execute(query).scalar())
    await bench.close()
    return {"left": left}


async def failure(url: URL) -> Any:
    record = Record()
    second = asyncio.Event()

    async def run_task(task_id: int, run: int, step: Any) -> None:
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
    bench = Bench(url, turns(record, 1))
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


async def unrecorded(url: URL) -> Any:
    """The disk is full when the first step's result is to be recorded."""
    from dbos._sys_db import SystemDatabase

    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    refused = iter([OperationalError("INSERT", {}, full)])
    record_result = SystemDatabase.record_operation_result

    def refuse_once(*args: Any, **options: Any) -> None:
        if (refusal := next(refused, None)) is not None:
            raise refusal from full
        record_result(*args, **options)

    with patch.object(SystemDatabase, "record_operation_result", refuse_once):
        seen = await simple(url)
    return {**seen, "is_refused": next(refused, None) is None}


async def nothing() -> None:
    return None


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
    "unrecorded": unrecorded,
}


async def main() -> None:
    case, url = sys.argv[1], make_url(sys.argv[2])
    async with asyncio.timeout(DEADLINE_SECONDS):
        print(json.dumps(await CASES[case](url)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
