"""A process among the others: what it says about them on a real database and real folders."""

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from beray.server import cluster as cluster_module
from beray.server.cluster import Cluster
from beray.server.db.connect import Database
from beray.server.engine import heartbeat as heartbeat_module
from beray.server.readiness import Readiness
from beray.server.work_dirs.volume import FOLDER, MARK_FILE, Volume
from tests.support.databases import migrated
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(cluster_module, "SEEN_MS", -1)  # nobody is too young


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = migrated(make_url(postgres_url))
    database.open()
    yield database
    await asyncio.to_thread(database.close)


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


class Held:
    """A worker that notes whether it may claim."""

    def __init__(self) -> None:
        self.paused: list[bool] = []

    def pause(self, is_paused: bool) -> None:
        self.paused.append(is_paused)


@pytest.fixture
async def join(database: Database, tmp_path: Path) -> AsyncIterator[Callable]:
    """Lets processes join; they leave with the test."""
    async with AsyncExitStack() as stack:

        async def join(folder: Path = tmp_path, *, role: str = "all", worker: Any = None) -> Joined:
            return await stack.enter_async_context(joined(database, folder, role, worker))

        yield join


@asynccontextmanager
async def joined(database: Database, folder: Path, role: str = "all", worker: Any = None) -> AsyncIterator[Joined]:
    process = Joined(database, folder, role)
    await process.cluster.join(worker)
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
        assert elsewhere.work_dirs[0] == "failed", "at once: the folder has another mark"
        assert str(tmp_path / "elsewhere") in (elsewhere.work_dirs[1] or "")
        await until(lambda: here.work_dirs[1] is not None)

        hint = here.work_dirs[1] or ""
        process = elsewhere.cluster.process
        assert str(tmp_path) in hint
        assert f"process {process.pid} on {process.host}" in hint
        assert "(1 of 2 processes" in hint
        assert "BERAY_WORK_DIRS" in hint
        assert here.work_dirs[0] == "ok", "its own folder is the right one"

    await until(lambda: here.work_dirs == ("ok", None))


def copy_of(folder: Path) -> Path:
    """A folder with the same mark, where the others' files don't show up."""
    return shutil.copytree(folder, folder / "copy", ignore=lambda path, names: names if FOLDER in path else [])


def mount(folder: Path, place: Path) -> None:
    """The right folder comes to where another one was."""
    shutil.rmtree(place)
    place.symlink_to(folder)


async def test_copy_of_the_folder_is_told_to_both(join, tmp_path):
    """It has the mark, but the others' files are not there; which is the right one, nobody can know."""
    here = await join()
    elsewhere = await join(copy_of(tmp_path))
    await until(lambda: here.work_dirs[0] == elsewhere.work_dirs[0] == "failed")

    (tmp_path / FOLDER / elsewhere.id).touch()

    await until(lambda: here.work_dirs == ("ok", None))


async def test_folder_is_right_again_when_it_is_mended(join, tmp_path):
    """As when a volume was not mounted in time."""
    worker = Held()
    here, elsewhere = await join(), await join(tmp_path / "elsewhere", worker=worker)
    assert elsewhere.work_dirs[0] == "failed"
    assert worker.paused[0] is True, "held before it begins"

    mount(tmp_path, tmp_path / "elsewhere")

    await until(lambda: here.work_dirs == elsewhere.work_dirs == ("ok", None))
    assert worker.paused[-1] is False


async def test_folder_whose_volume_is_gone_is_told(join, tmp_path):
    here = await join()
    (tmp_path / MARK_FILE).unlink()

    await until(lambda: here.work_dirs[0] == "failed")
    assert not (tmp_path / MARK_FILE).exists(), "only a database without a folder takes a new one"


async def test_folder_that_does_not_answer_is_told_and_keeps_nobody(database, monkeypatch, tmp_path):
    """As a network file system whose server is away."""
    monkeypatch.setattr(cluster_module, "LEAVE_SECONDS", 0.1)
    answers = threading.Event()
    try:
        async with asyncio.timeout(20):
            async with joined(database, tmp_path) as here:
                monkeypatch.setattr(cluster_module, "HANGS_SECONDS", 0.1)
                monkeypatch.setattr(Volume, "has_mark", lambda *_: answers.wait(30))
                await until(lambda: here.work_dirs[0] == "failed")
                assert "does not answer" in (here.work_dirs[1] or "")
    finally:
        answers.set()


async def test_start_on_a_folder_that_does_not_answer_is_refused(database, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster_module, "HANGS_SECONDS", 0.1)
    answers = threading.Event()
    monkeypatch.setattr(Volume, "join", lambda *_: answers.wait(30))
    try:
        with pytest.raises(OSError, match="no answer"):
            await Joined(database, tmp_path, "all").cluster.join()
    finally:
        answers.set()


async def test_processes_that_come_first_together_agree(database, tmp_path):
    processes = [Joined(database, tmp_path, "all") for _ in range(8)]
    await asyncio.gather(*(process.cluster.join() for process in processes))

    assert {process.work_dirs for process in processes} == {("ok", None)}
    await asyncio.gather(*(process.cluster.leave() for process in processes))


async def test_of_two_folders_that_come_first_together_one_is_right(database, tmp_path):
    processes = [Joined(database, tmp_path / name, "all") for name in ("one", "two")]
    await asyncio.gather(*(process.cluster.join() for process in processes))

    assert sorted(process.work_dirs[0] for process in processes) == ["failed", "ok"]
    await asyncio.gather(*(process.cluster.leave() for process in processes))


async def test_beat_from_before_the_clock_was_set_back_is_none(join, database):
    here = await join()
    execute(
        database,
        "INSERT INTO process"
        " SELECT 'dead', role, host, pid, version, started_at, beat_at + 3600000, about FROM process",
    )

    await here.look_twice()

    assert here.seen == {here.id}


async def test_young_process_may_not_be_seen_yet(join, database, monkeypatch, tmp_path):
    """On a network file system a new file shows up later."""
    monkeypatch.setattr(cluster_module, "SEEN_MS", 10_000)
    here = await join()
    elsewhere = await join(copy_of(tmp_path))
    await until(lambda: elsewhere.id in here.seen)
    await here.look_twice()
    assert here.work_dirs == ("ok", None)

    execute(database, f"UPDATE process SET started_at = started_at - 10001 WHERE id = '{elsewhere.id}'")

    await until(lambda: here.work_dirs[0] == "failed")


async def test_process_that_ends_between_beat_and_look_is_not_missed(join, monkeypatch, tmp_path):
    """It was among the living, and its file is gone: one look is not enough."""
    monkeypatch.setattr(heartbeat_module, "BEAT_SECONDS", 600)
    here, other = await join(), await join()
    await until(lambda: other.cluster._looking is not None and other.cluster._looking.done())
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

    await until(lambda: api.cluster.about_workers() == [{"sandbox": "bubblewrap", "work_dirs": "ok"}])

    def told_by_api() -> dict[str, Any]:
        return {one.id: json.loads(one.about) for one in worker.cluster.living}.get(api.id, {})

    await until(lambda: told_by_api().get("never") == "asked")


async def test_database_that_is_away_is_told_and_so_is_its_return(join, database, monkeypatch):
    here = await join()
    await until(lambda: here.work_dirs == ("ok", None))

    execute(database, "ALTER TABLE process RENAME TO away")
    await until(lambda: here.check("database")[0] == "failed")
    assert "cannot be reached" in (here.check("database")[1] or "")

    execute(database, "ALTER TABLE away RENAME TO process")
    await until(lambda: here.check("database") == ("ok", None))


async def test_database_that_can_be_reached_but_not_listened_to_is_told(join, database):
    here = await join()

    here.cluster.note_listening(False)
    await here.look_twice()
    assert here.check("database")[0] == "failed", "a beat that goes through does not hide it"

    here.cluster.note_listening(True)
    assert here.check("database") == ("ok", None)


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
