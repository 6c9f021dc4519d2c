"""What a message costs its user, how many there may be, and which model works on after it."""

import contextlib
from unittest.mock import Mock

import pytest
from sqlalchemy import select

from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.prices import PriceTable
from beray.server.audit import AuditTrail
from beray.server.db.auth import UserRow
from beray.server.db.tables import task
from beray.server.errors import Refused
from beray.server.events.log import EventLog
from beray.server.events.wakeups import Wakeups
from beray.server.tasks import conversation
from beray.server.tasks.control import RunControl
from beray.server.tasks.service import Tasks
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.databases import seeded_database

AT = 1_800_000_000_123
USER = UserRow(1, "a@example.com", 0)
DEFAULT, OTHER, SPARE = (ModelChoice(f"openai:{name}", "model") for name in ("default", "other", "spare"))


@contextlib.contextmanager
def one_task(tmp_path, **values):
    """The users' door to a database with one task, which has these values."""
    with seeded_database(tmp_path / "beray.db", 1, **values) as database:
        work_dirs = WorkDirs(tmp_path / "tasks")
        tasks = Tasks(
            database=database,
            events=EventLog(database, Wakeups(), lambda: AT),
            work_dirs=work_dirs,
            control=RunControl(),
            clock=lambda: AT,
            models=Models(DEFAULT, (OTHER,), (SPARE,)),
            trail=AuditTrail(database, lambda: AT),
            task_uid=lambda task_id: None,
            stored=StoredBytes(database, work_dirs, most=0),
            prices=PriceTable(),
        )
        tasks.engine = Mock()
        yield tasks, database


async def get(database, column):
    return await database.read(lambda connection: connection.execute(select(task.c[column])).scalar_one())


@pytest.mark.parametrize(
    ("asked", "worked", "works"),
    [
        (None, DEFAULT, DEFAULT),
        (None, SPARE, DEFAULT),
        (None, OTHER, OTHER),
        (OTHER, OTHER, OTHER),
        (OTHER, SPARE, OTHER),
        (ModelChoice("openai:gone", "model"), SPARE, DEFAULT),
        (None, ModelChoice("openai:gone", "model"), DEFAULT),
    ],
    ids=["default", "fallen back", "yesterday", "asked for", "asked for, fallen back", "asked for, gone", "gone"],
)
async def test_further_run_begins_with_the_tasks_own_model(tmp_path, asked, worked, works):
    """What took over in the run before was for that run: its model may work again."""
    models = {"asked_model": asked and asked.name, "model": worked.name, "model_kind": "model"}
    with one_task(tmp_path, status="failed", **models) as (tasks, database):
        await tasks.send_message(USER, 1, "Go on.")

        assert await get(database, "model") == works.name


async def test_messages_count_for_the_users_store(tmp_path):
    with one_task(tmp_path, status="running", model_kind="model", stored_bytes=4096) as (tasks, database):
        await tasks.send_message(USER, 1, "\u00fcber")

        assert await get(database, "stored_bytes") == 4096 + 5


@pytest.mark.parametrize("status", ["running", "completed"])
async def test_one_task_takes_so_many_messages_and_no_more(tmp_path, status, monkeypatch):
    monkeypatch.setattr(conversation, "MESSAGES_MOST", 2)
    with one_task(tmp_path, status="running", model_kind="model") as (tasks, database):
        for _ in range(2):
            await tasks.send_message(USER, 1, "hello")
        await database.write(lambda connection: connection.execute(task.update().values(status=status)) and None)

        with pytest.raises(Refused) as refused:
            await tasks.send_message(USER, 1, "one too many")

        assert refused.value.code == "conversation_full"
