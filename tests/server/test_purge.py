"""`purge` on a database that several processes share: the files must go with the rows."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from beray.server.db import processes
from beray.server.db.processes import Process
from beray.server.purge import Purged, PurgeError, purge
from beray.server.settings import Settings
from beray.server.work_dirs.volume import FOLDER, Volume
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
