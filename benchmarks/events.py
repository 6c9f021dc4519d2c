"""The event log on both databases: how many events a second, and what a log written the plain way does.

Each producer has a task of its own and awaits the commit of one event (200 bytes of output) before the next, as
running agents do. The sides:

- ours: `EventLog`: one writer, group commit, SQLite with synchronous=FULL; fenced by the attempt.
- NORMAL: the same, synchronous=NORMAL (a power cut may lose what was acknowledged).
- async ORM: SQLAlchemy's `AsyncSession` on aiosqlite or psycopg, a session and a commit for each event, as durable.
- bare: the driver alone (`bare.py`): an INSERT and its commit, one row or 20 in each; numbers nothing, fences nothing.

Processor time is this process' own: what PostgreSQL's server uses is not in it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ForeignKey, LargeBinary, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.bare import FRAME, GROUP, Bare, bare_name, inserts_per_second, open_bare, postgres_version
from benchmarks.measure import Benchmark, Goal, Side
from beray.server.clock import system_clock
from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.db.sqlite import SqliteDatabase
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import Wakeups
from tests.support.databases import seeded_database, sqlite_url
from tests.support.postgres import DURABLE, PostgresCluster

PRODUCERS = 50
ROUNDS = 7
SECONDS = 0.5
BARE_SECONDS = 0.2
ORM_POOL = 5  # connections; 1 and 15 were tried too, and are slower or no faster
EVENT = NewEvent("tool.output", {"call_id": "c1", "stream": "stdout", "delta": "x" * 120, "truncated": False})
MANY = f"{PRODUCERS} producers"
UNIT = "events/s"
CPU_UNIT = "µs of processor time per event"

Append = Callable[[int], Awaitable[object]]


class Base(DeclarativeBase):
    """The plain twin's own schema."""


class OrmTask(Base):
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    last_seq: Mapped[int] = mapped_column(default=0)


class OrmEvent(Base):
    __tablename__ = "event"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    frame: Mapped[bytes] = mapped_column(LargeBinary)


class Producing:
    """Measures one way to append with so many producers; call it for a round.

    Attributes:
        rates: Events per second that the producers got acknowledged, a round each.
        costs: Microseconds of processor time each of them took.
    """

    def __init__(self, runner: asyncio.Runner, append: Append, producers: int = PRODUCERS) -> None:
        self._runner = runner
        self._append = append
        self._producers = producers
        self.rates: list[float] = []
        self.costs: list[float] = []

    def __call__(self) -> float:
        """One round: events per second."""
        processor, started = time.process_time(), time.perf_counter()
        count = self._runner.run(self._produce(started + SECONDS))
        self.costs.append((time.process_time() - processor) / count * 1e6)
        self.rates.append(count / (time.perf_counter() - started))
        return self.rates[-1]

    async def _produce(self, deadline: float) -> int:
        async def producer(task_id: int) -> int:
            count = 0
            while time.perf_counter() < deadline:
                await self._append(task_id)
                count += 1
            return count

        return sum(await asyncio.gather(*(producer(number + 1) for number in range(self._producers))))

    def forget(self) -> None:
        """Leave out what was measured so far: it warmed up."""
        self.rates.clear()
        self.costs.clear()


class Store:
    """What is measured on one database: ours with many producers and one, the ORM, the bare driver beside them."""

    def __init__(self, runner: asyncio.Runner, database: Database, orm: AsyncEngine) -> None:
        append = _append_by(database)
        self.driver = bare_name(database.url)
        self.many = Producing(runner, append)
        self.one = Producing(runner, append, 1)
        self.orm = Producing(runner, partial(_append_orm, orm))
        self.inserts: list[float] = []
        self.grouped: list[float] = []
        self._bare: Bare = open_bare(database.url)

    @property
    def producings(self) -> tuple[Producing, ...]:
        return self.many, self.orm, self.one

    def measure_bare(self) -> float:
        """A round of the bare driver: rows per second, each committed by itself."""
        self.inserts.append(inserts_per_second(self._bare, seconds=BARE_SECONDS))
        self.grouped.append(inserts_per_second(self._bare, seconds=BARE_SECONDS, group=GROUP))
        return self.inserts[-1]

    def compare(self, bench: Benchmark, name: str, *, goal: Goal | None) -> None:
        """What was found. The goal is against the ORM."""
        what = f"{name}: event log, {{}}".format
        many, one = Side("EventLog", self.many.rates), Side("EventLog", self.one.rates)
        orm = "async ORM, a commit per event"
        bench.compare(what(MANY), unit=UNIT, ours=many, other=Side(orm, self.orm.rates), goal=goal)
        costs = Side("EventLog", self.many.costs), Side(orm, self.orm.costs)
        bench.compare(what(MANY), unit=CPU_UNIT, ours=costs[0], other=costs[1])
        each = Side(f"{self.driver}, a commit per row", self.inserts)
        bench.compare(what(MANY), unit=UNIT, ours=many, other=each)
        groups = Side(f"{self.driver}, a commit per {GROUP} rows", self.grouped)
        bench.compare(what(MANY), unit=UNIT, ours=many, other=groups)
        bench.compare(what("1 producer"), unit=UNIT, ours=one, other=each)
        bench.note(what("1 producer"), unit=CPU_UNIT, ours=Side("EventLog", self.one.costs))


def main() -> None:
    """Measure."""
    with Benchmark("events") as bench, ExitStack() as stack:
        cluster = PostgresCluster(bench.folder / "postgres", settings=DURABLE).start()
        stack.callback(cluster.stop)
        runner = stack.enter_context(asyncio.Runner())  # a database belongs to the loop it was opened on: one for all
        opening = partial(_open, stack, runner)
        full = opening(sqlite_url(bench.folder / "full.db"))
        normal = Producing(runner, _append_by(runner.run(_open_normal(stack, bench.folder / "normal.db"))))
        own = make_url(cluster.create_database("ours"))
        bench.others["PostgreSQL"] = postgres_version(own)
        shared = opening(own)
        sqlite = Store(runner, full, _open_orm(stack, runner, sqlite_url(bench.folder / "orm.db")))
        postgres = Store(runner, shared, _open_orm(stack, runner, make_url(cluster.create_database("orm"))))

        producings = (normal, *sqlite.producings, *postgres.producings)
        for producing in producings:
            producing()
            producing.forget()
        bench.rounds(ROUNDS, *producings, sqlite.measure_bare, postgres.measure_bare)

        what = f"SQLite: event log, {MANY}"
        ours, other = Side("EventLog, FULL", sqlite.many.rates), Side("EventLog, NORMAL", normal.rates)
        bench.compare(what, unit=UNIT, ours=ours, other=other, goal=Goal("≥", 0.7))
        ours, other = Side("EventLog, FULL", sqlite.many.costs), Side("EventLog, NORMAL", normal.costs)
        bench.compare(what, unit=CPU_UNIT, ours=ours, other=other)
        sqlite.compare(bench, "SQLite", goal=Goal("≥", 20))
        postgres.compare(bench, "PostgreSQL", goal=None)


def _open(stack: ExitStack, runner: asyncio.Runner, url: URL) -> Database:
    async def open_seeded() -> Database:
        seeded = seeded_database(url, *range(1, PRODUCERS + 1), status="running", attempt=1)
        return stack.enter_context(seeded)

    return runner.run(open_seeded())


async def _open_normal(stack: ExitStack, path: Path) -> Database:
    with seeded_database(path, *range(1, PRODUCERS + 1), status="running", attempt=1):
        pass
    database = SqliteDatabase(path)
    event.listen(database._write_engine, "connect", lambda raw, record: raw.execute("PRAGMA synchronous=NORMAL"))
    database.open()
    stack.callback(database.close)
    return database


def _append_by(database: Database) -> Append:
    log = EventLog(database, Wakeups(), system_clock)
    return lambda task_id: log.append(task_id, [EVENT], attempt=Attempt(1, 1))


def _open_orm(stack: ExitStack, runner: asyncio.Runner, url: URL) -> AsyncEngine:
    is_sqlite = url.get_backend_name() == "sqlite"
    driver = "sqlite+aiosqlite" if is_sqlite else "postgresql+psycopg"
    engine = create_async_engine(url.set(drivername=driver), pool_size=ORM_POOL, max_overflow=0)
    if is_sqlite:  # the other has synchronous_commit on by default
        event.listen(engine.sync_engine, "connect", _make_durable)

    async def seed() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(OrmTask(id=number + 1, last_seq=0) for number in range(PRODUCERS))
            await session.commit()

    runner.run(seed())
    stack.callback(lambda: runner.run(engine.dispose()))
    return engine


def _make_durable(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


async def _append_orm(engine: AsyncEngine, task_id: int) -> None:
    async with AsyncSession(engine) as session:
        task = await session.get_one(OrmTask, task_id)
        task.last_seq += 1
        session.add(OrmEvent(task_id=task_id, seq=task.last_seq, frame=FRAME))
        await session.commit()


if __name__ == "__main__":
    main()
