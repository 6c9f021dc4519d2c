"""The event log: how much durability costs, and what a log written the plain way costs.

50 producers, each on a task of its own, each awaiting the commit of one event (200 bytes of output) before the next, as
running agents do. The sides:

- ours: `EventLog` on `SqliteDatabase`: one writer, group commit, synchronous=FULL; fenced by the attempt.
- NORMAL: the same, synchronous=NORMAL (a power cut may lose what was acknowledged).
- ORM: the SQLAlchemy ORM, a session and a commit for each event, in threads, synchronous=FULL. An async ORM does the
  same, in threads of its driver, which is no dependency of ours; so it is not measured here.
- plain: `sqlite3` alone, a commit for each event, one thread, synchronous=FULL.
"""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ForeignKey, LargeBinary, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.measure import Benchmark, Goal, Side
from beray.server.clock import system_clock
from beray.server.db import migrate, tables
from beray.server.db.sqlite import SqliteDatabase, sqlite_engine
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import Wakeups

PRODUCERS = 50
ROUNDS = 5
SECONDS = 1.2
EVENT = NewEvent("tool.output", {"call_id": "c1", "stream": "stdout", "delta": "x" * 120, "truncated": False})
BODY = b'id: 1\nevent: tool.output\ndata: {"v":1,"seq":1,"at":"2026-01-01T00:00:00.000Z","delta":"%s"}\n\n' % (
    b"x" * 120
)

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


def main() -> None:
    """Measure."""
    with Benchmark("events") as bench:
        durable = _open_log(bench.folder / "full.db", synchronous="FULL")
        normal = _open_log(bench.folder / "normal.db", synchronous="NORMAL")
        orm = _open_orm(bench.folder / "orm.db")
        plain = _open_plain(bench.folder / "plain.db")
        ours, other, orm_rounds, plain_rounds = bench.rounds(
            ROUNDS,
            lambda: asyncio.run(_produce(_append_by(durable))),
            lambda: asyncio.run(_produce(_append_by(normal))),
            lambda: asyncio.run(_produce(lambda task_id: asyncio.to_thread(_append_orm, orm, task_id))),
            lambda: _produce_plain(plain),
        )
        full = Side("EventLog, FULL", ours)
        what = f"event log, {PRODUCERS} producers"
        unit = "events/s"
        bench.compare(what, unit=unit, ours=full, other=Side("EventLog, NORMAL", other), goal=Goal("≥", 0.7))
        orm_side = Side("ORM in threads, commit per event, FULL", orm_rounds)
        bench.compare(what, unit=unit, ours=full, other=orm_side, goal=Goal("≥", 20))
        bench.compare(what, unit=unit, ours=full, other=Side("sqlite3, commit per event, FULL", plain_rounds))
        durable.close()
        normal.close()


async def _produce(append: Append) -> float:
    """Events per second that the producers got acknowledged."""
    deadline = time.perf_counter() + SECONDS

    async def producer(task_id: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            await append(task_id)
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(producer(number + 1) for number in range(PRODUCERS)))
    return sum(counts) / (time.perf_counter() - started)


def _open_log(path: Path, *, synchronous: str) -> SqliteDatabase:
    engine = sqlite_engine(path)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(insert(tables.user).values(id=1, email="a@example.com", created_at=0))
        rows = [
            {"id": number + 1, "user_id": 1, "goal": "", "status": "running", "usage": "{}", "attempt": 1}
            for number in range(PRODUCERS)
        ]
        connection.execute(insert(tables.task).values(created_at=0, updated_at=0), rows)
    engine.dispose()
    database = SqliteDatabase(path)
    event.listen(
        database._write_engine, "connect", lambda raw, record: raw.execute(f"PRAGMA synchronous={synchronous}")
    )
    database.open()
    return database


def _append_by(database: SqliteDatabase) -> Append:
    log = EventLog(database, Wakeups(), system_clock)
    return lambda task_id: log.append(task_id, [EVENT], attempt=1)


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
        session.add(OrmEvent(task_id=task_id, seq=task.last_seq, frame=BODY))
        session.commit()


def _open_plain(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL DEFAULT 0)")
    connection.execute("CREATE TABLE event (task_id, seq, frame, PRIMARY KEY (task_id, seq)) WITHOUT ROWID")
    connection.executemany("INSERT INTO task (id) VALUES (?)", [(number + 1,) for number in range(PRODUCERS)])
    return connection


def _produce_plain(connection: sqlite3.Connection) -> float:
    started = time.perf_counter()
    count = 0
    for task_id in itertools.cycle(range(1, PRODUCERS + 1)):
        if time.perf_counter() > started + SECONDS:
            break
        connection.execute("BEGIN IMMEDIATE")
        row: Any = connection.execute(
            "UPDATE task SET last_seq = last_seq + 1 WHERE id = ? RETURNING last_seq", (task_id,)
        ).fetchone()
        connection.execute("INSERT INTO event VALUES (?, ?, ?)", (task_id, row[0], BODY))
        connection.execute("COMMIT")
        count += 1
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
