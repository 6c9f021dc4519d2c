"""How much a user may store: what uploads and removals change, and where uploads end."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from beray.server.audit import AuditTrail
from beray.server.db import stored as queries
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.tables import task, user
from beray.server.errors import Refused
from beray.server.files import service
from beray.server.files.service import Expectation, Files
from beray.server.work_dirs.outputs import Outputs
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.usage import measure
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs
from tests.support.databases import seeded_database
from tests.support.waiting import begun, until

KIB = 1024
MOST = 1024 * KIB
USER = UserRow(1, "a@example.com", 0)
OTHER = UserRow(2, "b@example.com", 0)
ANY = Expectation()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """With tasks 1 and 2 of user 1, as the version before leaves them: not measured."""
    with seeded_database(tmp_path / "beray.db", 1, 2, status="running") as database:
        yield database


@pytest.fixture
def work_dirs(tmp_path: Path) -> WorkDirs:
    return WorkDirs(tmp_path / "tasks")


@pytest.fixture
def stored(database: Database, work_dirs: WorkDirs) -> StoredBytes:
    return StoredBytes(database, work_dirs, most=MOST)


def make_files(database: Database, work_dirs: WorkDirs, stored: StoredBytes) -> Files:
    async def open_work_dir(user: UserRow, task_id: int) -> WorkDir:
        return work_dirs.create(task_id, owner=None)

    async def find_outputs(user: UserRow, task_id: int) -> Outputs:
        return work_dirs.outputs(task_id)

    trail = AuditTrail(database, lambda: 0)
    return Files(open_work_dir, stored, trail, find_outputs=find_outputs, max_upload_bytes=64 * MOST)


@pytest.fixture
def files(database: Database, work_dirs: WorkDirs, stored: StoredBytes) -> Files:
    return make_files(database, work_dirs, stored)


async def settled(stored: StoredBytes) -> int:
    """What the user stores, with all that was answered."""
    await stored.settle()
    return await stored.of_user(USER.id)


async def stays() -> bool:
    return False


async def body(size: int, *, until: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for _ in range(size // (16 * KIB)):
        yield b"x" * 16 * KIB
    if until is not None:
        await until.wait()


async def upload(files: Files, path: str, size: int, *, task_id: int = 1, announced: bool = False) -> None:
    length = size if announced else None
    await files.upload(USER, task_id, path, body(size), announced_bytes=length, expectation=ANY)


async def refusal(files: Files, path: str, size: int, *, announced: bool = False) -> tuple[str, int]:
    with pytest.raises(Refused) as refused:
        await upload(files, path, size, announced=announced)
    return refused.value.code, refused.value.status_code


@pytest.mark.parametrize("announced", [True, False])
async def test_upload_that_has_no_room_is_refused_and_leaves_nothing(files, stored, work_dirs, announced):
    """Over all of the user's tasks together."""
    await upload(files, "a", 496 * KIB, announced=announced)
    await upload(files, "b", 400 * KIB, task_id=2)
    before = await settled(stored)

    assert await refusal(files, "c", 320 * KIB, announced=announced) == ("storage_full", 413)

    assert await settled(stored) == before
    assert sorted(path.name for path in work_dirs.root.rglob("*") if path.is_file()) == ["a", "b"]
    await upload(files, "d", 32 * KIB)


async def test_what_is_known_is_what_is_measured(files, stored, work_dirs, database):
    """After new, larger, smaller and removed files."""
    await upload(files, "a", 320 * KIB)
    await upload(files, "folder/b", 160 * KIB)
    await upload(files, "a", 64 * KIB)
    await upload(files, "folder/c", 160 * KIB)
    await files.remove(USER, 1, "folder/b", is_gone=stays)
    known = await settled(stored)
    await files.remove(USER, 1, "folder", is_gone=stays)
    left = await settled(stored)

    assert 224 * KIB <= known < 280 * KIB
    assert 64 * KIB <= left < 100 * KIB
    assert left == measure(work_dirs.root / "1")


async def test_removal_gives_room(files):
    await upload(files, "a", 640 * KIB)
    assert (await refusal(files, "b", 640 * KIB))[0] == "storage_full"

    await files.remove(USER, 1, "a", is_gone=stays)

    await upload(files, "b", 640 * KIB)


async def test_uploads_that_are_under_way_count(files, stored):
    """Else many at once would each find the room empty."""
    go = asyncio.Event()
    first = asyncio.create_task(
        files.upload(USER, 1, "a", body(640 * KIB, until=go), announced_bytes=640 * KIB, expectation=ANY)
    )
    await until(lambda: stored._coming, what="the upload to have begun")

    assert (await refusal(files, "b", 640 * KIB))[0] == "storage_full"

    first.cancel()  # as when the client hangs up
    with pytest.raises(asyncio.CancelledError):
        await first
    await upload(files, "b", 640 * KIB)


async def test_upload_that_began_when_there_was_room_is_looked_at_again(files, stored, work_dirs, monkeypatch):
    monkeypatch.setattr(service, "GATHER_BYTES", 16 * KIB)
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 16 * KIB
        await go.wait()
        yield b"x" * 624 * KIB

    first = asyncio.create_task(files.upload(USER, 1, "a", slow(), announced_bytes=None, expectation=ANY))
    try:
        await until(lambda: stored._coming, what="the upload to have begun")
        await upload(files, "b", 640 * KIB)
        await stored.settle()
    finally:
        go.set()

    with pytest.raises(Refused, match="leaves no room"):
        await first
    assert [path.name for path in work_dirs.root.rglob("*") if path.is_file()] == ["b"]


async def test_room_is_held_until_the_database_knows(files, stored, database, monkeypatch):
    """An upload that was answered counts at once; who might be refused for it waits until it is written down."""
    await settled(stored)  # measures what nobody has
    go = asyncio.Event()
    write = database.write

    async def late(query: Any) -> Any:
        await go.wait()
        return await write(query)

    monkeypatch.setattr(database, "write", late)
    await upload(files, "a", 640 * KIB)

    [second] = await begun(upload(files, "b", 640 * KIB))
    assert stored._coming[USER.id] >= 640 * KIB

    go.set()
    with pytest.raises(Refused, match="leaves no room"):
        await second
    assert await settled(stored) >= 640 * KIB
    assert not stored._coming


async def test_users_do_not_share_their_room(files, database):
    values = {"goal": "g", "usage": "{}", "created_at": 0, "updated_at": 0, "status": "completed"}

    def add(connection) -> None:
        connection.execute(insert(user).values(id=OTHER.id, email=OTHER.email, created_at=0))
        connection.execute(insert(task).values(id=3, user_id=OTHER.id, **values))

    await database.write(add)
    await upload(files, "a", 992 * KIB)

    await files.upload(OTHER, 3, "a", body(640 * KIB), announced_bytes=None, expectation=ANY)

    assert (await refusal(files, "b", 640 * KIB))[0] == "storage_full"


@pytest.mark.parametrize("few", [1, 2, 3])
async def test_sum_is_the_same_of_few_tasks_and_of_many(stored, database, monkeypatch, few):
    monkeypatch.setattr(queries, "FEW", few)
    await stored.of_user(USER.id)  # measures them
    await database.write(
        lambda connection: connection.execute(update(task).values(stored_bytes=task.c.id * KIB)).rowcount
    )

    assert await stored.of_user(USER.id) == 3 * KIB
    assert await stored.of_user(USER.id, but=1) == 2 * KIB
    assert await stored.of_user(OTHER.id) == 0


async def test_tasks_of_an_older_version_are_measured_when_they_are_asked_for(work_dirs, stored, database):
    for task_id in (1, 2):
        work_dirs.create(task_id, owner=None).write_bytes("a", b"x" * 100 * KIB)

    assert await settled(stored) >= 200 * KIB
    known = await database.read(lambda connection: connection.execute(select(task.c.stored_bytes)).scalars().all())
    assert all(known)


async def test_without_a_limit_everything_is_taken_and_counted(database, work_dirs):
    stored = StoredBytes(database, work_dirs, most=0)
    files = make_files(database, work_dirs, stored)
    await database.write(lambda connection: connection.execute(update(task).values(stored_bytes=0)).rowcount)

    await upload(files, "a", 2 * MOST)

    assert await settled(stored) >= 2 * MOST


async def test_upload_stays_when_what_it_takes_cannot_be_kept(files, work_dirs, database, stored, monkeypatch):
    await settled(stored)
    with monkeypatch.context() as away:

        async def refuse(query: object) -> None:
            raise Refused("database_unavailable")

        away.setattr(database, "write", refuse)
        await upload(files, "a", 64 * KIB)
        await stored.settle()

    assert await settled(stored) < 64 * KIB
    assert await stored.measure(1) >= 64 * KIB
    assert await settled(stored) >= 64 * KIB


async def test_upload_during_a_measuring_is_not_forgotten(files, stored, work_dirs):
    """The walk may have been past its place already."""
    await upload(files, "a", 64 * KIB)
    await settled(stored)
    found = await stored.look(1)

    await upload(files, "b", 320 * KIB)
    await stored.settle()
    await stored.keep(1, found)

    assert await stored.of_task(1) == measure(work_dirs.root / "1")


async def test_removal_is_answered_though_what_is_left_cannot_be_measured(files, work_dirs, monkeypatch):
    await upload(files, "folder/a", 64 * KIB)

    def fail(task_id: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(work_dirs, "measure", fail)

    await files.remove(USER, 1, "folder", is_gone=stays)

    assert not (work_dirs.root / "1" / "folder").exists()
