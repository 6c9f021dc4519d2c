"""`purge`: the files must go with the rows, and who only looks changes nothing."""

import asyncio
import sqlite3
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from beray.server.db import processes
from beray.server.db.open import SQLITE_FILE
from beray.server.db.processes import Process
from beray.server.purge import Purged, PurgeError, purge
from beray.server.settings import Settings
from beray.server.work_dirs.volume import FOLDER, Volume
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database

SERVER = Process("host-1-a", "all", "host.example.com", 1, "0")


@pytest.fixture
def url(postgres_url: str) -> str:
    """A database with task 1, which ended long ago, and a server that lives."""

    async def seed() -> None:
        with seeded_database(make_url(postgres_url), 1, status="completed", finished_at=0) as database:
            await database.write(lambda connection: processes.beat(connection, SERVER, "{}"))

    asyncio.run(seed())
    return postgres_url


@pytest.fixture
def work_dirs(tmp_path: Path) -> Path:
    """The folder that the server uses, with a file of task 1."""
    folder = tmp_path / "shared"
    (folder / "1" / "work").mkdir(parents=True)
    (folder / "1" / "work" / "a.txt").touch()
    Volume(folder, SERVER.id).join()
    return folder


def settings(url: str, data_dir: Path, **more: object) -> Settings:
    return Settings(data_dir=data_dir, database_url=url, **more)


def tasks(url: str) -> list[int]:
    """The tasks that are neither hidden nor deleted."""
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM task WHERE deleted_at IS NULL")]


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize("has_been_used", [True, False])
def test_another_folder_than_the_servers_is_refused(url, work_dirs, tmp_path, has_been_used, is_dry):
    """It has no file of the server's, be it that others have been there or that nobody has."""
    other = tmp_path / "other"
    (other / (FOLDER if has_been_used else "")).mkdir(parents=True)
    before = sorted(other.rglob("*"))

    with pytest.raises(PurgeError) as refused:
        purge(settings(url, tmp_path, work_dirs=other), days=1, is_dry=is_dry)

    assert all(part in str(refused.value) for part in (str(other), "BERAY_WORK_DIRS", "--data", "host.example.com"))
    assert tasks(url) == [1]
    assert sorted(other.rglob("*")) == before


def test_folder_that_does_not_exist_is_refused(url, work_dirs, tmp_path):
    with pytest.raises(PurgeError) as refused:
        purge(settings(url, tmp_path / "data"), days=1, is_dry=False)

    assert all(part in str(refused.value) for part in (str(tmp_path / "data" / "tasks"), "BERAY_WORK_DIRS", "--data"))
    assert tasks(url) == [1]
    assert not (tmp_path / "data").exists()


def test_folder_of_the_servers_is_emptied(url, work_dirs, tmp_path):
    before = sorted(path.name for path in (work_dirs / FOLDER).iterdir())

    assert purge(settings(url, tmp_path, work_dirs=work_dirs), days=1, is_dry=False) == Purged(1, 1)

    assert tasks(url) == []
    assert not (work_dirs / "1").exists()
    assert sorted(path.name for path in (work_dirs / FOLDER).iterdir()) == before


def test_folder_that_no_server_has_used_is_refused_though_none_lives(url, tmp_path):
    """Nobody is there to be missed in it."""
    other = tmp_path / "other"
    other.mkdir()
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM process")

    with pytest.raises(PurgeError, match=r"no \.processes.*BERAY_WORK_DIRS.*--data"):
        purge(settings(url, tmp_path, work_dirs=other), days=1, is_dry=False)

    assert tasks(url) == [1]
    assert list(other.iterdir()) == []


def test_folder_of_another_database_is_refused_though_none_lives(url, work_dirs, tmp_path):
    """Its servers have used it, and it looks like the right one."""
    own = Volume(work_dirs, SERVER.id).mark()
    other = tmp_path / "other"
    others = Volume(other, "other")
    others.join()
    others.mark()
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM process")
        connection.execute("INSERT INTO volume (id, mark) VALUES (1, %s)", [own])

    with pytest.raises(PurgeError, match="another database"):
        purge(settings(url, tmp_path, work_dirs=other), days=1, is_dry=False)

    assert tasks(url) == [1]
    assert purge(settings(url, tmp_path, work_dirs=work_dirs), days=1, is_dry=False) == Purged(1, 1)


def test_folder_of_servers_that_have_ended_is_emptied(url, work_dirs, tmp_path):
    Volume(work_dirs, SERVER.id).leave()
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM process")

    assert purge(settings(url, tmp_path, work_dirs=work_dirs), days=1, is_dry=False) == Purged(1, 1)

    assert not (work_dirs / "1").exists()


def test_dry_purge_changes_nothing_of_a_shared_database(url, work_dirs, tmp_path):
    """Not even the engine's tables are made, nor what old writers left swept."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO writer (id, last_group, at) VALUES ('old', 1, 0)")

    assert purge(settings(url, tmp_path, work_dirs=work_dirs), days=1, is_dry=True) == Purged(1, 0)

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT id FROM writer WHERE id = 'old'").fetchall() == [("old",)]
        assert connection.execute("SELECT to_regnamespace('dbos')").fetchone() == (None,)


@pytest.mark.parametrize("is_dry", [True, False])
def test_database_without_tables_is_refused_and_stays_so(postgres_url, tmp_path, is_dry):
    with pytest.raises(PurgeError, match="Start a server of this version"):
        purge(settings(postgres_url, tmp_path), days=1, is_dry=is_dry)

    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    """SQLite, with tasks 1 and 2, which ran and ended long ago, and 3, whose deletion was cut."""
    values = {"status": "completed", "finished_at": 0, "attempt": 1}

    async def seed() -> None:
        with seeded_database(tmp_path / SQLITE_FILE, 1, 2, 3, **values) as database:
            await database.write(
                lambda connection: connection.execute(text("UPDATE task SET deleted_at = 1 WHERE id = 3")).rowcount
            )

    asyncio.run(seed())
    return Settings(data_dir=tmp_path)


def left(settings: Settings) -> list[tuple[int, bool]]:
    """The tasks, and whether they are hidden."""
    with sqlite3.connect(settings.data_dir / SQLITE_FILE) as connection:
        return list(connection.execute("SELECT id, deleted_at IS NOT NULL FROM task ORDER BY id"))


ALL = [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize("has_folder", [True, False])
def test_folder_without_any_tasks_files_is_refused(local, has_folder):
    """BERAY_WORK_DIRS was forgotten: the data folder has none."""
    if has_folder:
        (local.data_dir / "tasks" / "99").mkdir(parents=True)

    with pytest.raises(PurgeError, match=r"no files of any task.*BERAY_WORK_DIRS.*--data"):
        purge(local, days=1, is_dry=False)

    assert left(local) == ALL


def test_folder_with_some_of_the_files_will_do(local):
    """A crash may have taken the files of one and left its row; what was cut is finished."""
    WorkDirs(local.data_dir / "tasks").create(1, owner=None)

    assert purge(local, days=1, is_dry=False) == Purged(2, 2)

    assert left(local) == []
    assert list((local.data_dir / "tasks").iterdir()) == []


def test_task_that_cannot_be_removed_is_told_when_the_others_are_gone(local, monkeypatch):
    delete = WorkDirs.delete

    def delete_but_1(work_dirs: WorkDirs, task_id: int) -> None:
        if task_id == 1:
            raise PermissionError(13, "Permission denied")
        delete(work_dirs, task_id)

    monkeypatch.setattr(WorkDirs, "delete", delete_but_1)
    WorkDirs(local.data_dir / "tasks").create(1, owner=None)

    with pytest.raises(PurgeError, match=r"1 tasks were deleted, 1 could not be.*Permission denied.*Mend that"):
        purge(local, days=1, is_dry=False)

    assert left(local) == [(1, True)]


def test_dry_purge_changes_nothing_of_a_file(local):
    WorkDirs(local.data_dir / "tasks").create(1, owner=None)
    with sqlite3.connect(local.data_dir / SQLITE_FILE) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # as a backup has it
    before = (local.data_dir / SQLITE_FILE).read_bytes()

    assert purge(local, days=1, is_dry=True) == Purged(2, 0)

    assert (local.data_dir / SQLITE_FILE).read_bytes() == before


@pytest.mark.parametrize("is_dry", [True, False])
def test_file_of_an_older_version_is_refused_and_stays_as_it_is(local, is_dry):
    with sqlite3.connect(local.data_dir / SQLITE_FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")

    with pytest.raises(PurgeError, match=r"at revision 0001.*Start a server of this version"):
        purge(local, days=1, is_dry=is_dry)

    with sqlite3.connect(local.data_dir / SQLITE_FILE) as connection:
        assert list(connection.execute("SELECT version_num FROM alembic_version")) == [("0001",)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'workflow_status'").fetchall() == []


@pytest.mark.parametrize(("floor", "is_refused"), [("0001", False), ("9999", True)])
def test_file_of_a_newer_version_is_used_if_this_one_can(local, floor, is_refused):
    WorkDirs(local.data_dir / "tasks").create(1, owner=None)
    with sqlite3.connect(local.data_dir / SQLITE_FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_floor SET oldest_head = ?", [floor])

    if is_refused:
        with pytest.raises(PurgeError, match="Install the newer version"):
            purge(local, days=1, is_dry=True)
    else:
        assert purge(local, days=1, is_dry=True) == Purged(2, 0)
