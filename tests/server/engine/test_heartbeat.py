"""The heartbeat on a real PostgreSQL: who can't beat lets go in time, and goes on when it can again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Engine, make_url, text

from beray.server.db import migrate
from beray.server.db.postgres import postgres_engine
from beray.server.db.processes import Living, Process
from beray.server.engine import heartbeat as heartbeat_module
from beray.server.engine.heartbeat import Heartbeat
from tests.support.commit_proxy import CommitProxy
from tests.support.postgres import PostgresCluster
from tests.support.waiting import until

BEAT_SECONDS = 0.02
FENCE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "BEAT_SECONDS", BEAT_SECONDS)
    monkeypatch.setattr(heartbeat_module, "FENCE_SECONDS", FENCE_SECONDS)
    monkeypatch.setattr(heartbeat_module, "LOOK_SECONDS", 0.02)


@pytest.fixture
def proxy(postgres: PostgresCluster) -> Iterator[CommitProxy]:
    with CommitProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """Ours, past the proxy, on a database with the schema."""
    engine = postgres_engine(make_url(postgres_url), pool_size=2)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


class RecordingWorker:
    """What is asked of the worker, in order; a cut takes until `may_end_cut` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_end_cut = asyncio.Event()
        self.may_end_cut.set()
        self.fails_to_go_on = 0
        self.may_recover = asyncio.Event()
        self.may_recover.set()

    async def cut(self) -> None:
        self.asked.append("cut")
        await self.may_end_cut.wait()
        self.asked.append("was cut")

    async def go_on(self) -> None:
        self.asked.append("go on")
        if self.fails_to_go_on:
            self.fails_to_go_on -= 1
            raise RuntimeError("not yet")

    async def recover_dead(self) -> int:
        if self.asked[-1:] != ["recover"]:  # it is asked after each beat
            self.asked.append("recover")
        await self.may_recover.wait()
        return 0


class Beating:
    """A process under test: its heartbeat, and what that has said."""

    def __init__(self, postgres_url: str, port: int, name: str) -> None:
        url = make_url(postgres_url).set(port=port)
        self.heard: list[list[str] | None] = []
        self.living: list[Living] = []
        self.about: dict[str, object] = {}
        self.worker = RecordingWorker()
        me = Process(id=name, role="all", host="h", pid=7, version="1")
        self.heartbeat = Heartbeat(
            postgres_engine(url, pool_size=1), me, about=lambda: self.about, on_living=self._note
        )

    def _note(self, living) -> None:
        self.heard.append(None if living is None else [one.id for one in living])
        self.living = list(living or self.living)

    async def next_beat(self, *, fails: bool = False) -> None:
        """Wait for a beat that has begun after this call."""
        before = len(self.heard)
        await until(lambda: [heard for heard in self.heard[before:] if (heard is None) == fails][1:])


@pytest.fixture
async def beating(postgres_url, proxy, engine) -> AsyncIterator[Beating]:
    """Behind the proxy."""
    async with started(postgres_url, proxy.port, "me") as beating:
        yield beating


@asynccontextmanager
async def started(postgres_url: str, port: int, name: str) -> AsyncIterator[Beating]:
    beating = Beating(postgres_url, port, name)
    await beating.heartbeat.start()
    beating.heartbeat.guard(beating.worker)
    try:
        yield beating
    finally:
        await beating.heartbeat.stop()


def execute(engine: Engine, statement: str) -> list[tuple]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def test_process_beats_on_and_sees_the_others(beating, postgres, postgres_url, engine):
    beating.about["slots"] = 3
    [(first,)] = execute(engine, "SELECT beat_at FROM process")

    async with started(postgres_url, postgres.port, "other") as other:
        await beating.next_beat()
        await other.next_beat()
        assert beating.heard[-1] == other.heard[-1] == ["me", "other"]

    await beating.next_beat()
    assert beating.heard[-1] == ["me"], "who has ended is gone at once"
    [(started_at, beat_at, about)] = execute(engine, "SELECT started_at, beat_at, about FROM process")
    assert started_at <= first < beat_at
    assert about == '{"slots": 3}'
    assert beating.worker.asked == ["recover"]


async def test_start_without_a_database_fails(postgres_url, proxy, engine):
    proxy.is_open = False
    beating = Beating(postgres_url, proxy.port, "me")

    with pytest.raises(Exception, match="connection"):
        await beating.heartbeat.start()

    await beating.heartbeat.stop()
    assert execute(engine, "SELECT id FROM process") == []


async def test_dead_process_is_not_among_the_living_by_the_clock_of_the_database(beating, engine):
    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    columns = "INSERT INTO process (id, role, host, pid, version, started_at, beat_at, about)"
    execute(engine, f"{columns} SELECT 'dead', 'all', 'h', 1, '1', 0, {now} - 10500, '{{}}'")
    execute(engine, f"{columns} SELECT 'late', 'all', 'h', 1, '1', {now} - 60000, {now} - 5000, '{{}}'")

    await beating.next_beat()

    assert beating.heard[-1] == ["late", "me"]
    ages = {one.id: one.age_ms for one in beating.living}
    assert 60_000 <= ages["late"] < 90_000
    assert 0 <= ages["me"] < 30_000


async def test_beat_that_fails_once_cuts_nothing(beating, proxy):
    await beating.next_beat()

    proxy.cut_all()
    await until(lambda: None in beating.heard)
    await beating.next_beat()

    assert beating.worker.asked == ["recover"]


async def test_process_that_cannot_beat_is_cut_once_and_goes_on_before_it_recovers_others(beating, proxy):
    await beating.next_beat()
    proxy.hide()
    began = asyncio.get_running_loop().time()
    await until(lambda: "was cut" in beating.worker.asked)
    assert asyncio.get_running_loop().time() - began >= FENCE_SECONDS - 0.1, "not before its time"
    for _ in range(20):
        await beating.next_beat(fails=True)
    assert beating.worker.asked == ["recover", "cut", "was cut"]

    proxy.show()
    await until(lambda: beating.worker.asked[-1] == "recover")

    assert beating.worker.asked == ["recover", "cut", "was cut", "go on", "recover"]
    assert beating.heard[-1] == ["me"]


async def test_silent_connection_is_a_beat_that_fails(beating, proxy):
    """Nothing is refused, nothing closed: the fence doesn't wait for an error."""
    await beating.next_beat()
    proxy.is_silent = True

    await until(lambda: "was cut" in beating.worker.asked)

    assert None not in beating.heard
    proxy.is_silent = False
    proxy.cut_all()
    await until(lambda: beating.worker.asked[-2:] == ["go on", "recover"])


async def test_process_goes_on_only_when_its_cut_is_done(beating, proxy):
    """Killing tools may take longer than the database was away."""
    beating.worker.may_end_cut.clear()
    await beating.next_beat()
    proxy.hide()
    await until(lambda: "cut" in beating.worker.asked)

    proxy.show()
    await beating.next_beat()
    await beating.next_beat()
    assert beating.worker.asked == ["recover", "cut"]
    beating.worker.may_end_cut.set()
    await until(lambda: beating.worker.asked[-1] == "recover")

    assert beating.worker.asked == ["recover", "cut", "was cut", "go on", "recover"]


async def test_taking_over_for_long_keeps_no_beat_waiting(beating):
    beating.worker.may_recover.clear()
    await until(lambda: beating.worker.asked)

    for _ in range(10):
        await beating.next_beat()

    assert beating.worker.asked == ["recover"]


async def test_going_on_that_fails_is_tried_again(beating, proxy):
    beating.worker.fails_to_go_on = 2
    await beating.next_beat()
    proxy.hide()
    await until(lambda: "was cut" in beating.worker.asked)

    proxy.show()
    await until(lambda: beating.worker.asked[-1] == "recover")

    assert beating.worker.asked == ["recover", "cut", "was cut", "go on", "go on", "go on", "recover"]


async def test_fence_is_there_anew_after_going_on(beating, proxy):
    await beating.next_beat()
    for count in (1, 2):
        proxy.hide()
        await until(lambda count=count: beating.worker.asked.count("was cut") == count)
        proxy.show()
        await until(lambda count=count: beating.worker.asked.count("go on") == count)

    assert beating.worker.asked.count("cut") == 2


async def test_stop_ends_soon_while_the_database_is_away(postgres_url, proxy, engine):
    beating = Beating(postgres_url, proxy.port, "me")
    await beating.heartbeat.start()
    proxy.hide()

    await asyncio.wait_for(beating.heartbeat.stop(), 5)

    assert execute(engine, "SELECT id FROM process") == [("me",)], "it is dead when its lease has lapsed"


async def test_stop_removes_the_process(postgres_url, postgres, engine):
    async with started(postgres_url, postgres.port, "me"):
        assert execute(engine, "SELECT id FROM process") == [("me",)]

    assert execute(engine, "SELECT id FROM process") == []
