"""The event log on both databases: how many events a second, and what a log written the plain way does.

Each producer has a task of its own and awaits the commit of one event (200 bytes of output) before the next, as
running agents do. The sides:

- ours: `EventLog`: one writer, group commit, SQLite with synchronous=FULL; fenced by the attempt.
- NORMAL: the same, synchronous=NORMAL (a power cut may lose what was acknowledged).
- bare: the driver alone (`bare.py`): an INSERT and its commit, one row or 20 in each; numbers nothing, fences nothing.
- ORM: the SQLAlchemy ORM on SQLite, a session and a commit for each event, in threads, synchronous=FULL. An async ORM
  does the same, in threads of its driver, which is no dependency of ours; so it is not measured here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Engine, ForeignKey, LargeBinary, event, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.bare import FRAME, GROUP, Bare, bare_name, inserts_per_second, open_bare
from benchmarks.measure import Benchmark, Goal, Side
from beray.server.clock import system_clock
from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.db.sqlite import SqliteDatabase, sqlite_engine
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import Wakeups
from tests.support.databases import seeded_database, sqlite_url
from tests.support.postgres import DURABLE, PostgresCluster

PRODUCERS = 50
ROUNDS = 7
SECONDS = 0.6
EVENT = NewEvent("tool.output", {"call_id": "c1", "stream": "stdout", "delta": "x" * 120, "truncated": False})
UNIT = "events/s"

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


@dataclass(frozen=True)
class Store:
    """One database: ours on it, and the bare driver beside it."""

    name: str
    driver: str
    database: Database
    bare: Bare


def main() -> None:
    """Measure."""
    with Benchmark("events") as bench, ExitStack() as stack:
        cluster = PostgresCluster(bench.folder / "postgres", settings=DURABLE).start()
        stack.callback(cluster.stop)
        runner = stack.enter_context(asyncio.Runner())  # a database belongs to the loop it was opened on: one for all
        opening = partial(_open_store, stack, runner)
        sqlite = opening("SQLite", sqlite_url(bench.folder / "full.db"))
        postgres = opening("PostgreSQL", make_url(cluster.create_database("bench")))
        normal = runner.run(_open_normal(stack, bench.folder / "normal.db"))
        orm = _open_orm(bench.folder / "orm.db")

        def produce(append: Append, producers: int = PRODUCERS) -> Callable[[], float]:
            return lambda: runner.run(_produce(append, producers))

        measures = [produce(_append_by(normal)), produce(partial(asyncio.to_thread, _append_orm, orm))]
        for store in (sqlite, postgres):
            append = _append_by(store.database)
            measures += [
                produce(append),
                produce(append, 1),
                partial(inserts_per_second, store.bare, seconds=SECONDS / 2),
                partial(inserts_per_second, store.bare, seconds=SECONDS / 2, group=GROUP),
            ]
        for measure in measures:  # the first warms up
            measure()
        in_normal, by_orm, *found = bench.rounds(ROUNDS, *measures)
        what = f"SQLite: event log, {PRODUCERS} producers"
        ours = Side("EventLog, FULL", found[0])
        bench.compare(what, unit=UNIT, ours=ours, other=Side("EventLog, NORMAL", in_normal), goal=Goal("≥", 0.7))
        orm_side = Side("ORM in threads, commit per event, FULL", by_orm)
        bench.compare(what, unit=UNIT, ours=ours, other=orm_side, goal=Goal("≥", 20))
        _compare(bench, sqlite, *found[:4])
        _compare(bench, postgres, *found[4:])


def _compare(
    bench: Benchmark, store: Store, many: list[float], one: list[float], inserts: list[float], grouped: list[float]
) -> None:
    each = Side(f"{store.driver}, a commit per row", inserts)
    what = f"{store.name}: event log, {{}}".format
    bench.compare(what("1 producer"), unit=UNIT, ours=Side("EventLog", one), other=each)
    bench.compare(what(f"{PRODUCERS} producers"), unit=UNIT, ours=Side("EventLog", many), other=each)
    groups = Side(f"{store.driver}, a commit per {GROUP} rows", grouped)
    bench.compare(what(f"{PRODUCERS} producers"), unit=UNIT, ours=Side("EventLog", many), other=groups)


async def _produce(append: Append, producers: int) -> float:
    """Events per second that the producers got acknowledged."""
    deadline = time.perf_counter() + SECONDS

    async def producer(task_id: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            await append(task_id)
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(producer(number + 1) for number in range(producers)))
    return sum(counts) / (time.perf_counter() - started)


def _open_store(stack: ExitStack, runner: asyncio.Runner, name: str, url: URL) -> Store:
    async def open_seeded() -> Database:
        seeded = seeded_database(url, *range(1, PRODUCERS + 1), status="running", attempt=1)
        return stack.enter_context(seeded)

    return Store(name, bare_name(url), runner.run(open_seeded()), open_bare(url))


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


def _open_orm(path: Path) -> Engine:
    engine = sqlite_engine(path)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(OrmTask(id=number + 1, last_seq=0) for number in range(PRODUCERS))
        session.commit()
    return engine


def _append_orm(engine: Engine, task_id: int) -> None:
    with Session(engine) as session:
        task = session.get_one(OrmTask, task_id)
        task.last_seq += 1
        session.add(OrmEvent(task_id=task_id, seq=task.last_seq, frame=FRAME))
        session.commit()


if __name__ == "__main__":
    main()
