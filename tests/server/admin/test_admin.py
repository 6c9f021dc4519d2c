"""What an admin sees of everybody, and may do, over HTTP; and that nobody else sees it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import NotFoundError
from tests.support.server import ServerProcess

ADMIN = "admin@example.com"
PRIVATE = "what only its owner knows"
CHANGES = (("PUT", "/admin/users/1"), ("POST", "/admin/tasks/1/stop"))
LOOKS = tuple(("GET", f"/admin/{name}") for name in ("overview", "users", "tasks", "audit"))
_numbers = itertools.count(1)


class User:
    """Somebody who is logged in."""

    def __init__(self, server: ServerProcess, token: str) -> None:
        self.token = token
        self._api = f"{server.base_url}/api/v1"

    def ask(self, method: str, path: str, **request: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Language": "en"}
        return requests.request(method, f"{self._api}{path}", headers=headers, timeout=30, **request)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def watched(module_dir: Path) -> Iterator[ServerProcess]:
    """A server of this module, for there is one list of everybody."""
    server = ServerProcess(module_dir / "data").start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def boss(watched) -> User:
    """The first admin."""
    token = watched.register(ADMIN)
    watched.promote(ADMIN)
    return User(watched, token)


@pytest.fixture
def make_user(watched):
    """Makes users, each with its id and address."""

    def make() -> tuple[User, int, str]:
        email = f"user-{next(_numbers)}@example.com"
        user = User(watched, watched.register(email))
        return user, user.get("/users/me")["id"], email

    return make


def begin(user: User, watched: ServerProcess) -> int:
    """A task that goes on until it is stopped."""
    with BeRayClient(watched.base_url, token=user.token) as client:
        task_id = client.create_task(f"```bash\n: {PRIVATE}\necho begun\nsleep 600\n```")["id"]
        next(event for event in client.stream_task_updates(task_id) if event["type"] == "tool.output")
    return task_id


def without_id(answer: requests.Response) -> dict[str, Any]:
    return answer.json() | {"request_id": ""}


@pytest.mark.parametrize(("method", "path"), [*LOOKS, *CHANGES])
def test_admins_routes_are_a_path_where_nothing_is_for_everybody_else(boss, make_user, method, path):
    """Whatever else is wrong with the request; and by any of their tokens."""
    user, _, _ = make_user()
    program = make_user()[0]
    program.token = user.ask("POST", "/users/me/tokens", json={"name": "ci"}).json()["token"]

    for who in (user, program):
        answers = [who.ask(method, path), who.ask(method, f"{path}?limit=x&before=0", data=b"{no json")]
        nothing = who.ask(method, "/admin/nothing")
        for answer in answers:
            assert answer.status_code == 404
            assert without_id(answer) == without_id(nothing) | {"detail": f"There is nothing at /api/v1{path}."}
            assert answer.headers.keys() == nothing.headers.keys()
    assert (user.get("/users/me")["is_admin"], boss.get("/users/me")["is_admin"]) == (False, True)


def test_overview_tells_how_the_service_is_doing(boss, watched, make_user):
    user, _, _ = make_user()
    before = boss.get("/admin/overview")
    running = begin(user, watched)
    held = user.ask("POST", "/tasks", json={"goal": "Stay", "hold": True}).json()["id"]

    seen = boss.get("/admin/overview")
    info = requests.get(f"{watched.base_url}/api/v1/info", timeout=10).json()

    assert (seen["version"], seen["limits"]) == (info["version"], info["limits"])
    assert seen["tasks"]["running"] == before["tasks"]["running"] + 1
    assert seen["tasks"]["queued"] == before["tasks"]["queued"] + 1
    assert seen["queue"] == {"queued": 0, "oldest_seconds": None}, "a held task waits for no worker"
    [process] = seen["processes"]
    assert watched.process is not None
    assert (process["pid"], process["role"], process["running"]) == (watched.process.pid, "all", 1)
    assert seen["storage"]["total_bytes"] > seen["storage"]["free_bytes"] > 0
    assert seen["storage"]["stored_bytes"] > 0
    assert seen["storage"]["database_bytes"] > 0
    assert seen["model"] == {"name": "beray:rules", "kind": "rules", "last_check": None}
    assert {check["state"] for check in seen["checks"].values()} == {"ok"}
    assert seen["usage_today"].keys() == before["usage_today"].keys()
    for task_id in (running, held):
        assert boss.ask("POST", f"/admin/tasks/{task_id}/stop").status_code == 200
    after = boss.get("/admin/overview")
    assert after["ended_today"]["stopped"] == before["ended_today"]["stopped"] + 2
    assert after["tasks"]["ended"] == before["tasks"]["ended"] + 2


def test_users_are_listed_in_pages_that_link_to_the_next(boss, make_user):
    made = [make_user() for _ in range(3)]
    made[0][0].ask("POST", "/tasks", json={"goal": "Stay", "hold": True})

    first = boss.ask("GET", "/admin/users?limit=2&q=USER-")
    second = boss.ask("GET", first.links["next"]["url"].removeprefix("/api/v1"))

    seen = [*first.json(), *second.json()][:3]
    assert [user["email"] for user in seen] == [email for _, _, email in reversed(made)]
    oldest = seen[2]
    assert (oldest["id"], oldest["is_admin"], oldest["tasks"], oldest["active_tasks"]) == (made[0][1], False, 1, 1)
    assert oldest["stored_bytes"] > 0
    assert oldest["last_login_at"] >= oldest["created_at"]
    assert oldest["usage_today"] == {"requests": 0, "tokens": 0, "cost_usd": 0.0, "requests_of_unknown_cost": 0}
    assert boss.ask("GET", "/admin/users?limit=0").status_code == 422
    assert boss.get("/admin/users?q=nobody-has-this") == []


def test_tasks_of_everybody_are_listed_without_what_was_said_and_can_be_stopped(boss, watched, make_user):
    user, user_id, email = make_user()
    task_id = begin(user, watched)

    [seen] = boss.get(f"/admin/tasks?user_id={user_id}")
    everything = boss.ask("GET", "/admin/tasks").text
    stopped = boss.ask("POST", f"/admin/tasks/{task_id}/stop")
    again = boss.ask("POST", f"/admin/tasks/{task_id}/stop")

    assert (seen["id"], seen["user"], seen["status"]) == (task_id, {"id": user_id, "email": email}, "running")
    assert (seen["run"], seen["attempt"], seen["stop_requested"], seen["finished_at"]) == (1, 1, False, None)
    assert {"goal", "result", "error", "question"}.isdisjoint(seen)
    assert PRIVATE not in everything
    assert (stopped.status_code, stopped.json()["status"]) == (200, "stopped")
    assert again.json() == stopped.json()
    assert boss.get(f"/admin/tasks?user_id={user_id}") == []
    [ended] = boss.get(f"/admin/tasks?user_id={user_id}&status=stopped&status=running")
    assert (ended["id"], ended["status"]) == (task_id, "stopped")
    assert user.get(f"/tasks/{task_id}?events=none")["status"] == "stopped"
    [entry] = boss.get("/admin/audit?action=admin.task.stopped&limit=1")
    assert (entry["who"], entry["task_id"], entry["resource"]) == (ADMIN, task_id, email)
    assert PRIVATE not in boss.ask("GET", "/admin/audit?limit=1000").text


@pytest.mark.parametrize("task_id", [999_999, 0, 2**63, 2**70])
def test_task_that_is_not_there_cannot_be_stopped(boss, task_id):
    answer = boss.ask("POST", f"/admin/tasks/{task_id}/stop")

    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


def test_an_admin_gets_nobody_elses_task_by_the_ordinary_routes(boss, watched, make_user):
    """The role shows how the service is doing, not what people do with it."""
    user, _, _ = make_user()
    task_id = user.ask("POST", "/tasks", json={"goal": PRIVATE, "hold": True}).json()["id"]

    with BeRayClient(watched.base_url, token=boss.token) as client:
        for look in (client.get_task, client.stop_task, client.delete_task, client.list_files_tree):
            with pytest.raises(NotFoundError):
                look(task_id)
        with pytest.raises(NotFoundError):
            client.upload_file(task_id, "a", b"x")
        assert client.list_tasks() == []
    assert user.get(f"/tasks/{task_id}?events=none")["status"] == "queued"


def test_roles_count_at_once_and_are_told(boss, make_user):
    user, user_id, email = make_user()
    assert user.get("/users/me")["is_admin"] is False

    promoted = boss.ask("PUT", f"/admin/users/{user_id}", json={"is_admin": True})

    assert (promoted.status_code, promoted.json()["is_admin"]) == (200, True)
    assert user.get("/users/me")["is_admin"] is True
    assert user.get("/admin/users?limit=1")
    demoted = user.ask("PUT", f"/admin/users/{user_id}", json={"is_admin": False})
    assert demoted.json()["is_admin"] is False
    assert user.ask("GET", "/admin/users").status_code == 404
    entries = boss.get("/admin/audit?limit=2")
    assert [(entry["action"], entry["who"], entry["resource"]) for entry in entries] == [
        ("admin.demoted", email, email),
        ("admin.promoted", ADMIN, email),
    ]


def test_the_last_admin_stays_one(boss):
    me = boss.get("/users/me")["id"]

    answer = boss.ask("PUT", f"/admin/users/{me}", json={"is_admin": False})

    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    assert boss.get("/users/me")["is_admin"] is True


@pytest.mark.parametrize("user_id", [999_999, 0, 2**63])
def test_user_that_is_not_there_gets_no_role(boss, user_id):
    answer = boss.ask("PUT", f"/admin/users/{user_id}", json={"is_admin": True})

    assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


@pytest.mark.parametrize("body", [{}, {"is_admin": "yes"}, {"is_admin": 1}, {"is_admin": None}])
def test_role_must_be_said_plainly(boss, body):
    assert boss.ask("PUT", "/admin/users/1", json=body).status_code == 422


def test_api_token_of_an_admin_looks_and_changes_nothing(boss, watched, make_user):
    _, user_id, _ = make_user()
    program = User(watched, boss.ask("POST", "/users/me/tokens", json={"name": "watch"}).json()["token"])

    for method, path in LOOKS:
        assert program.ask(method, path).status_code == 200
    refused = [
        program.ask("PUT", f"/admin/users/{user_id}", json={"is_admin": True}),
        program.ask("POST", "/admin/tasks/1/stop"),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(403, "login_needed")] * 2


def test_audit_log_is_shown_newest_first_by_user_and_action(boss, make_user):
    user, user_id, email = make_user()
    for _ in range(2):
        user.ask("POST", "/tasks", json={"goal": "Stay", "hold": True})

    first = boss.ask("GET", f"/admin/audit?user_id={user_id}&limit=2")
    rest = boss.ask("GET", first.links["next"]["url"].removeprefix("/api/v1")).json()
    made = boss.get(f"/admin/audit?user_id={user_id}&action=register")

    assert [entry["action"] for entry in first.json()] == ["task.created", "task.created"]
    assert [entry["action"] for entry in rest] == ["register"]
    assert rest == made
    assert (made[0]["who"], made[0]["address"]) == (email, "127.0.0.1")
    assert boss.ask("GET", "/admin/audit?action=nonsense").status_code == 422
