"""`beray admin`: what is old goes, what is young stays, nothing goes unasked, and the audit log tells who did what."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import text

from beray.client import BeRayClient
from beray.exceptions import APIError, NotFoundError
from beray.server.beside import operator
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.sqlite import sqlite_engine
from tests.support.command_line import CommandLine
from tests.support.server import PASSWORD, ServerProcess
from tests.support.waiting import wait_until

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


HOSTILE = "\x1b[2J\x1b]0;gone\x07\u202etxt.harmless"


def test_audit_log_tells_who_did_what_and_holds_no_secret(make_server, local):
    """Every kind of entry, by the requests that leave it, and what `beray admin audit` shows of them."""
    server: ServerProcess = make_server(rate_limits=1, max_stored_bytes=1 << 20).start()
    data = ("--data", str(server.data_dir))
    token = server.register("a@example.com")
    stranger = server.register("b@example.com")
    code = server.code_for("a@example.com")
    with BeRayClient(server.base_url, token=token, max_retries=0) as client:
        leave_entries(server, client, stranger)
    local("admin", "purge", "--days", "0", "--yes", *data)

    def find_all() -> list[dict[str, Any]] | None:
        lines = local("admin", "audit", "--json", *data).out.splitlines()
        found = [json.loads(line) for line in lines]
        return found if {"task.foreign", "file.deleted"} <= {entry["action"] for entry in found} else None

    entries = wait_until(find_all, what="what is written beside the requests")
    add_hostile(server)
    table = local("admin", "audit", "--user", "A@Example.com", *data)
    failed = local("admin", "audit", "--action", "login.failed", "--since", "1h", "--limit", "1", "--json", *data)
    later = local("admin", "audit", "--since", "2999-01-01", *data)
    pruned = local("admin", "prune-audit", "--days", "1", "--yes", *data)
    answer = requests.get(f"{server.base_url}/health", timeout=10, headers={"X-Request-ID": "mine"})

    told = [(entry["action"], entry["who"], entry["task_id"], entry["resource"]) for entry in entries]
    in_order = [entry for entry in told if entry[0] not in {"task.foreign", "file.written", "file.deleted"}]
    assert in_order == [
        ("code.requested", "a@example.com", None, None),
        ("register", "a@example.com", None, None),
        ("code.requested", "b@example.com", None, None),
        ("register", "b@example.com", None, None),
        ("rate.refused", "a@example.com", None, "code per email"),
        ("register.failed", "c@example.com", None, "invalid_verification_code"),
        ("login.failed", "a@example.com", None, None),
        ("login.failed", "nobody@example.com", None, None),
        ("login", "a@example.com", None, None),
        ("task.created", "a@example.com", 1, None),
        ("task.started", "a@example.com", 1, None),
        ("task.created", "a@example.com", 2, None),
        ("task.stopped", "a@example.com", 2, None),
        ("task.deleted", "a@example.com", 2, None),
        ("logout", "a@example.com", None, None),
        ("admin.purge", operator(), None, "1 tasks that ended more than 0 days ago"),
    ]
    assert {entry for entry in told if entry not in in_order} == {
        ("file.written", "a@example.com", 1, "in.txt"),
        ("file.deleted", "a@example.com", 1, "in.txt"),
        ("task.foreign", "b@example.com", 1, None),
    }
    assert {entry["address"] for entry in entries} == {"127.0.0.1", None}
    assert all(entry["request_id"] for entry in entries if entry["address"])
    assert answer.headers["X-Request-ID"] == "mine"
    for secret in (token, stranger, PASSWORD, "not the password", code, "Write a Python", "secret content"):
        assert secret not in str(entries)
    assert "file.written" in table.out
    assert "b@example.com" not in table.out
    assert "txt.harmless" in table.out
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", table.out) is None
    assert [json.loads(line)["who"] for line in failed.out.splitlines()] == ["nobody@example.com"]
    assert (later.out, "no such entries" in later.err) == ("", True)
    assert (pruned.status, "forgotten: 1." in pruned.err) == (0, True)


def add_hostile(server: ServerProcess) -> None:
    engine = sqlite_engine(server.data_dir / "beray.db")
    with engine.begin() as connection:
        insert_row(connection, AuditRow(0, "file.written", who="a@example.com", resource=HOSTILE))
    engine.dispose()


def leave_entries(server: ServerProcess, client: BeRayClient, stranger: str) -> None:
    def post(path: str, **body: str) -> int:
        return requests.post(f"{server.base_url}/api/v1/auth/{path}", json=body, timeout=30).status_code

    assert [post("request-verification-code", email="a@example.com") for _ in range(2)] == [429, 429]
    wrong = {"email": "c@example.com", "verification_code": "000000", "password": PASSWORD}
    assert post("register", **wrong) == 400
    assert post("login", email="a@example.com", password="not the password") == 401
    assert post("login", email="nobody@example.com", password="not the password") == 401
    assert post("login", email="a@example.com", password=PASSWORD) == 200
    first = client.create_task("Write a Python script that prints hi", hold=True)["id"]
    client.upload_file(first, "in.txt", "secret content")
    client.delete_file(first, "in.txt")
    client.start_task(first)
    list(client.stream_task_updates(first))
    with pytest.raises(APIError, match="413 storage_full"):
        client.upload_file(first, "big", b"x" * (2 << 20))
    second = client.create_task("Write a Python script that prints hi", hold=True)["id"]
    client.stop_task(second)
    client.delete_task(second)
    with BeRayClient(server.base_url, token=stranger) as other, pytest.raises(NotFoundError):
        other.get_task(first)
    client.logout()


def test_operator_lists_users_and_names_admins_beside_a_running_server(make_server, local):
    """Who is promoted is one at once, for the server that runs; the audit log tells who did it."""
    server: ServerProcess = make_server().start()
    data = ("--data", str(server.data_dir))
    token = server.register("ann@example.com")
    server.register("bob@example.com")
    url, headers = f"{server.base_url}/api/v1/admin/users", {"Authorization": f"Bearer {token}"}

    def asked() -> int:
        return requests.get(url, headers=headers, timeout=10).status_code

    before = asked()
    promoted = local("admin", "users", "--promote", "Ann@Example.com", *data)
    as_admin = asked()
    table = local("admin", "users", *data)
    admins = local("admin", "users", "--admins", "--json", *data)
    newest = local("admin", "users", "--limit", "1", "--json", *data)
    demoted = local("admin", "users", "--demote", "ann@example.com", *data)
    afterwards = asked()
    nobody = local("admin", "users", "--promote", "nobody@example.com", *data)
    none = local("admin", "users", "--admins", *data)
    told = local("admin", "audit", "--json", *data)

    assert (before, as_admin, afterwards) == (404, 200, 404)
    assert (promoted.status, "Ann@Example.com is an admin now" in promoted.err) == (0, True)
    assert [line.split()[:3] for line in table.out.splitlines()] == [
        ["id", "e-mail", "role"],
        ["2", "bob@example.com", "-"],
        ["1", "ann@example.com", "admin"],
    ]
    [ann] = [json.loads(line) for line in admins.out.splitlines()]
    assert (ann["email"], ann["is_admin"], ann["tasks"]) == ("ann@example.com", True, 0)
    assert [json.loads(line)["email"] for line in newest.out.splitlines()] == ["bob@example.com"]
    assert (demoted.status, "no admin now" in demoted.err) == (0, True), "also the last one: the operator stands above"
    assert (nobody.status, "There is no user nobody@example.com" in nobody.err) == (1, True)
    assert (none.out, "no such users" in none.err) == ("", True)
    entries = [json.loads(line) for line in told.out.splitlines()]
    assert [(entry["action"], entry["who"], entry["resource"]) for entry in entries if "admin" in entry["action"]] == [
        ("admin.promoted", operator(), "ann@example.com"),
        ("admin.demoted", operator(), "ann@example.com"),
    ]


def test_local_user_cannot_be_an_admin(make_server, local):
    """The embedded server's own user has no password, so nobody could log in as them."""
    server: ServerProcess = make_server(local_user=1).start()

    ended = local("admin", "users", "--promote", "local@localhost", "--data", str(server.data_dir))

    assert ended.status == 1
    assert "local@localhost has no password and cannot log in" in ended.err
    assert "Register an account" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("users", "--promote", "a@example.com", "--demote", "a@example.com"), "--promote"),
        (("users", "--limit", "0"), "--limit"),
        (("audit", "--action", "nonsense"), "login.failed"),
        (("audit", "--since", "yesterday"), "30m, 7d or 2026"),
        (("audit", "--limit", "0"), "--limit"),
        (("prune-audit", "--days", "0", "--yes"), "--days"),
        (("prune-audit", "--days", "9"), "--yes"),
    ],
)
def test_what_cannot_be_asked_so_is_refused(local, arguments, said):
    ended = local("admin", *arguments)

    assert (ended.status, said in ended.err) == (2, True)


@pytest.mark.parametrize("arguments", [("audit",), ("users",), ("users", "--promote", "a@example.com")])
def test_what_has_no_database_says_how_to_name_it(local, arguments):
    ended = local("admin", *arguments)

    assert ended.status == 1
    assert "There is no database" in ended.err
    assert "--data" in ended.err
