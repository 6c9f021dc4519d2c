"""A process among the others: what it says about them on a real database and real folders."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from beray.server import cluster as cluster_module
from beray.server.cluster import Cluster
from beray.server.db.connect import Database
from beray.server.engine import heartbeat as heartbeat_module
from beray.server.readiness import Readiness
from beray.server.work_dirs.volume import FOLDER
from tests.support.databases import migrated
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(cluster_module, "SEEN_MS", -1)  # nobody is too young


@pytest.fixture
def database(postgres_url: str) -> Database:
    """Not open: a cluster makes a connection of its own."""
    return migrated(make_url(postgres_url))


class Joined:
    """A process that has joined."""

    def __init__(self, database: Database, folder: Path, role: str) -> None:
        self.readiness = Readiness()
        self.cluster = Cluster(database, folder, self.readiness, role=role)

    @property
    def id(self) -> str:
        return self.cluster.process.id

    @property
    def work_dirs(self) -> tuple[str, str | None]:
        return self.check("work_dirs")

    @property
    def seen(self) -> set[str]:
        return {one.id for one in self.cluster.living}

    def check(self, name: str) -> tuple[str, str | None]:
        check = self.readiness.checks.get(name, {"state": "starting", "hint": None})
        return check["state"], check["hint"]

    async def look_twice(self) -> None:
        """Wait until it has looked around anew."""
        for _ in range(2):
            before = self.cluster._looking
            await until(lambda before=before: self.cluster._looking is not before and self.cluster._looking.done())


@pytest.fixture
async def join(database: Database, tmp_path: Path) -> AsyncIterator[Callable]:
    """Lets processes join; they leave with the test."""
    async with AsyncExitStack() as stack:

        async def join(folder: Path = tmp_path, *, role: str = "all") -> Joined:
            return await stack.enter_async_context(joined(database, folder, role))

        yield join


@asynccontextmanager
async def joined(database: Database, folder: Path, role: str = "all") -> AsyncIterator[Joined]:
    process = Joined(database, folder, role)
    await process.cluster.join()
    try:
        yield process
    finally:
        await process.cluster.leave()


def execute(database: Database, statement: str) -> None:
    engine = database.make_engine()
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


async def test_processes_on_one_folder_are_ready(join):
    first, second = await join(), await join()
    await until(lambda: first.seen == second.seen == {first.id, second.id})

    for process in (first, second):
        await process.look_twice()
        assert [process.check(name) for name in ("database", "workers", "work_dirs")] == [("ok", None)] * 3


async def test_process_on_another_folder_is_told_to_both_until_it_leaves(join, database, tmp_path):
    here = await join()
    async with joined(database, tmp_path / "elsewhere") as elsewhere:
        await until(lambda: here.work_dirs[0] == elsewhere.work_dirs[0] == "failed")

        hint = here.work_dirs[1] or ""
        process = elsewhere.cluster.process
        assert str(tmp_path) in hint
        assert f"process {process.pid} on {process.host}" in hint
        assert "(1 of 2 processes" in hint
        assert "BERAY_WORK_DIRS" in hint
        assert here.readiness.status == "unavailable"

    await until(lambda: here.work_dirs == ("ok", None))


async def test_folder_is_right_again_when_it_is_mended(join, tmp_path):
    """As when a volume was not mounted in time."""
    here, elsewhere = await join(), await join(tmp_path / "elsewhere")
    await until(lambda: here.work_dirs[0] == "failed")

    (tmp_path / FOLDER / elsewhere.id).touch()

    await until(lambda: here.work_dirs == ("ok", None))


async def test_young_process_may_not_be_seen_yet(join, database, monkeypatch, tmp_path):
    """On a network file system a new file shows up later."""
    monkeypatch.setattr(cluster_module, "SEEN_MS", 10_000)
    here, elsewhere = await join(), await join(tmp_path / "elsewhere")
    await until(lambda: elsewhere.id in here.seen)
    await here.look_twice()
    assert here.work_dirs == ("ok", None)

    execute(database, f"UPDATE process SET started_at = started_at - 10001 WHERE id = '{elsewhere.id}'")

    await until(lambda: here.work_dirs[0] == "failed")


async def test_process_that_ends_between_beat_and_look_is_not_missed(join, monkeypatch, tmp_path):
    """It was among the living, and its file is gone: one look is not enough."""
    monkeypatch.setattr(heartbeat_module, "BEAT_SECONDS", 600)
    here, other = await join(), await join()
    await until(lambda: other.work_dirs == ("ok", None))
    (tmp_path / FOLDER / here.id).unlink()

    await other.cluster._look(other.cluster.living)
    assert other.work_dirs == ("ok", None)
    await other.cluster._look(other.cluster.living)
    assert other.work_dirs[0] == "failed"


async def test_folder_that_is_gone_is_told(join, tmp_path):
    here = await join(tmp_path / "a")
    await until(lambda: here.work_dirs == ("ok", None))

    (tmp_path / "a").rename(tmp_path / "b")
    await until(lambda: here.work_dirs[0] == "failed")
    assert here.work_dirs[1] == f"{tmp_path / 'a'} cannot be used: No such file or directory."

    (tmp_path / "b").rename(tmp_path / "a")
    await until(lambda: here.work_dirs == ("ok", None))


async def test_without_a_worker_there_is_a_hint_but_the_service_works(join, database, tmp_path):
    api = await join(role="api")
    assert api.check("workers") == ("ok", "No worker is running: tasks wait until one starts (beray worker).")

    async with joined(database, tmp_path, "worker"):
        await until(lambda: api.check("workers") == ("ok", None))

    await until(lambda: "No worker" in (api.check("workers")[1] or ""))


async def test_worker_that_has_died_is_no_worker(join, database):
    api = await join(role="api")
    execute(
        database,
        "INSERT INTO process (id, role, host, pid, version, started_at, beat_at, about)"
        " SELECT 'dead', 'worker', 'h', 1, '1', 0, beat_at - 10500, '{}' FROM process",
    )

    await api.look_twice()

    assert api.seen == {api.id}
    assert "No worker" in (api.check("workers")[1] or "")


async def test_what_workers_say_of_themselves_is_known_to_all(join):
    api, worker = await join(role="api"), await join(role="worker")
    api.cluster.about["never"] = "asked"
    worker.cluster.about["sandbox"] = "bubblewrap"

    await until(lambda: api.cluster.about_workers() == [{"sandbox": "bubblewrap"}])

    await until(lambda: {one.id: json.loads(one.about) for one in worker.cluster.living}.get(api.id))
    assert {"never": "asked"} in [json.loads(one.about) for one in worker.cluster.living]


async def test_database_that_is_away_is_told_and_so_is_its_return(join, database, monkeypatch):
    here = await join()
    await until(lambda: here.work_dirs == ("ok", None))

    execute(database, "ALTER TABLE process RENAME TO away")
    await until(lambda: here.check("database")[0] == "failed")
    assert "cannot be reached" in (here.check("database")[1] or "")

    execute(database, "ALTER TABLE away RENAME TO process")
    await until(lambda: here.check("database") == ("ok", None))


async def test_who_leaves_leaves_nothing(database, tmp_path):
    async with joined(database, tmp_path) as process:
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [process.id]

    assert list((tmp_path / FOLDER).iterdir()) == []
    async with joined(database, tmp_path) as next_process:
        assert next_process.seen == {next_process.id}


async def test_folder_that_cannot_be_written_stops_the_start(database, tmp_path):
    (tmp_path / "file").write_text("")
    process = Joined(database, tmp_path / "file", "all")

    with pytest.raises(OSError, match="file"):
        await process.cluster.join()

    await process.cluster.leave()
