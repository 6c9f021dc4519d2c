"""`beray admin purge`: what is old goes, what is young stays, and nothing goes unasked."""

from pathlib import Path

import pytest
from sqlalchemy import text

from beray.client import BeRayClient
from beray.server.db.sqlite import sqlite_engine
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess

YEAR_MS = 365 * 86_400_000


def age(server: ServerProcess, task_id: int) -> None:
    """Let a task have ended a year ago."""
    engine = sqlite_engine(server.data_dir / "beray.db")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE task SET finished_at = finished_at - :ms WHERE id = :id"), {"ms": YEAR_MS, "id": task_id}
        )
    engine.dispose()


def rows(server: ServerProcess) -> dict[str, int]:
    """How many rows there are of what a task leaves."""
    engine = sqlite_engine(server.data_dir / "beray.db", is_read_only=True)
    tables = ("task", "event", "tool_call", "checkpoint", "workflow_status")
    with engine.begin() as connection:
        counts = {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables}
    engine.dispose()
    return counts


@pytest.fixture
def local(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, {})


def test_old_tasks_go_with_all_they_left_beside_a_running_server(make_server, local):
    server: ServerProcess = make_server().start()
    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        old, young = (client.create_task("Write a Python script that prints hi")["id"] for _ in range(2))
        for task_id in (old, young):
            list(client.stream_task_updates(task_id))
        age(server, old)
        data = ("--data", str(server.data_dir))

        looked = local("admin", "purge", "--days", "30", "--dry-run", *data)
        unasked = local("admin", "purge", "--days", "30", *data)
        before = [task["id"] for task in client.list_tasks()]
        purged = local("admin", "purge", "--days", "30", "--yes", *data)
        again = local("admin", "purge", "--days", "30", "--yes", *data)

        assert (looked.status, "30 days ago: 1. Nothing" in looked.err) == (0, True)
        assert (unasked.status, "--yes" in unasked.err) == (2, True)
        assert sorted(before) == [old, young]
        assert (purged.status, "data: 1." in purged.err) == (0, True)
        assert (again.status, "30 days ago: 0. Nothing" in again.err) == (0, True)
        assert [task["id"] for task in client.list_tasks()] == [young]
        assert not (server.data_dir / "tasks" / str(old)).exists()
        assert [node["name"] for node in client.list_files_tree(young)] == ["hello.py"]
        left = rows(server)
        assert (left["task"], left["workflow_status"], left["checkpoint"]) == (1, 1, 1)


def test_people_are_asked(local, make_server, tmp_path):
    server: ServerProcess = make_server().start()
    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        task_id = client.create_task("Write a Python script that prints hi")["id"]
        list(client.stream_task_updates(task_id))
        terminal = local.on_terminal("admin", "purge", "--days", "0", "--data", str(server.data_dir))
        try:
            terminal.read_until("cannot be undone")
            terminal.type("n\n")
            status = terminal.end()
        finally:
            terminal.close()

        assert status == 1
        assert [task["id"] for task in client.list_tasks()] == [task_id]


@pytest.mark.parametrize("days", ["36501", "99999999999"])
def test_age_that_no_task_can_have_is_refused(local, days):
    said = local("admin", "purge", "--yes", "--days", days)
    set_too_high = local("admin", "purge", "--yes", BERAY_RETENTION_DAYS=days)

    assert said.status == 2
    assert (set_too_high.status, "a whole number of 0 to 36500 is needed" in set_too_high.err) == (2, True)


def test_how_old_must_be_said_or_set(local, tmp_path):
    unsaid = local("admin", "purge", "--yes")
    nowhere = local("admin", "purge", "--yes", BERAY_RETENTION_DAYS="30")

    assert (unsaid.status, "BERAY_RETENTION_DAYS" in unsaid.err) == (2, True)
    assert nowhere.status == 1
    assert "There is no database" in nowhere.err
    assert "--data" in nowhere.err
