"""A disk that is full, read-only or broken: it is said clearly, nothing is half done, nothing is lost, and when it is
mended all goes on without a restart.
"""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from tests.support.server import BERAY, PASSWORD, ServerProcess
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until

DISK_BYTES = 80 << 20  # with less than 64 MiB free the server calls itself not ready
UNTIL_GO = "```bash\necho one >> log; while [ ! -e go ]; do echo tick; sleep 0.05; done; echo two >> log\n```"
QUICK = "```bash\necho done\n```"
BIG = {"goal": "x" * 90_000, "hold": True}  # no page that is free by chance holds it
MENDS_SECONDS = 30.0


class Api:
    """The bare HTTP API of one server, with a user's token."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._session = requests.Session()
        self._session.headers["Accept-Language"] = "en"
        self._token = server.register("a@example.com")

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._token}", **options.pop("headers", {})}
        url = f"{self.server.base_url}/api/v1{path}"
        return self._session.request(method, url, headers=headers, timeout=30, **options)

    def create(self, goal: str) -> int:
        answer = self("POST", "/tasks/", json={"goal": goal})
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    def task(self, task_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self("GET", f"/tasks/{task_id}").json()
        return found

    def has_printed(self, task_id: int) -> bool:
        return any(event["type"] == "tool.output" for event in self.task(task_id)["events"])

    def upload(self, task_id: int, name: str, content: bytes = b"") -> requests.Response:
        return self("PUT", f"/tasks/{task_id}/files/content", params={"path": name}, data=content)

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = requests.get(f"{self.server.base_url}/ready", timeout=30)
        return answer.status_code, answer.json()["checks"]["database"]

    def wait_for(self, task_id: int, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.task(task_id)
            return found if found["status"] in states else None

        return wait_until(look, seconds=MENDS_SECONDS, what=f"task {task_id} to be {states}")

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def disk(service_dir: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    with SmallDisk(service_dir / f"disk-{request.node.name[:40]}", size_bytes=DISK_BYTES) as disk:
        yield disk


@pytest.fixture
def disk_api(disk: SmallDisk) -> Iterator[Api]:
    server = disk.server(max_running_tasks_per_user=2).start()
    try:
        api = Api(server)
        yield api
        api.close()
    finally:
        server.kill()


def assert_refused(answer: requests.Response, status: int, code: str) -> None:
    """In the contract's shape."""
    told = answer.json()
    assert (answer.status_code, told["code"], told["status"]) == (status, code, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["request_id"] == answer.headers["x-request-id"]
    assert told["detail"]
    assert ("retry-after" in answer.headers) == (status == 503)


COUNT = """
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}/beray.db?mode=ro", uri=True)
print(*(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("task", "workflow_status")))
"""


def stored_counts(data_dir: Path, through: tuple[str, ...] = ()) -> tuple[int, int]:
    """Tasks, and runs that the engine holds; by another program, for SQLite follows links, and would leave the disk."""
    command = [*through, sys.executable, "-c", COUNT, str(data_dir)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    tasks, runs = map(int, said.split())
    return tasks, runs


def assert_whole(task: dict[str, Any]) -> None:
    """Its events are numbered from 1, and it ended once."""
    assert [event["seq"] for event in task["events"]] == list(range(1, len(task["events"]) + 1))
    assert [event["type"] for event in task["events"]].count("task.finished") == 1


def lines_of(api: Api, task_id: int) -> list[str]:
    return api("GET", f"/tasks/{task_id}/files/content", params={"path": "log"}).text.split()


@pytest.mark.needs("tmpfs")
def test_what_a_full_disk_refuses_leaves_nothing_behind_and_succeeds_later(disk, disk_api):
    held = disk_api("POST", "/tasks/", json={"goal": QUICK, "hold": True}).json()["id"]
    assert disk_api.upload(held, "kept", b"old").status_code == 201
    tasks, runs = stored_counts(disk.path, disk.through)
    key = {"Idempotency-Key": "the-same"}
    body = {"goal": f"{QUICK}\n" + "\n" * 90_000}
    disk.fill()

    refusals = [disk_api("POST", "/tasks/", json=body, headers=key) for _ in range(2)]
    refusals.append(disk_api.upload(held, "kept", b"n" * 100_000))
    refusals.append(disk_api("POST", "/auth/login", json={"email": "a@example.com", "password": PASSWORD}))
    for answer in refusals:
        assert_refused(answer, 507, "disk_full")
    status, check = disk_api.ready()
    assert (status, check["state"]) == (503, "failed")
    assert str(disk.path) in check["hint"]
    assert [task["id"] for task in disk_api("GET", "/tasks/").json()] == [held]
    assert stored_counts(disk.path, disk.through) == (tasks, runs)
    assert [path.name for path in (disk.seen_at / "tasks").iterdir()] == [str(held)]
    assert disk_api("GET", f"/tasks/{held}/files/content", params={"path": "kept"}).content == b"old"
    assert [path.name for path in (disk.seen_at / "tasks" / str(held) / "work").iterdir()] == ["kept"]

    disk.make_room()
    answers = [disk_api("POST", "/tasks/", json=body, headers=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    task_id = answers[0].json()["id"]
    assert disk_api.wait_for(task_id, "completed", "failed")["status"] == "completed"
    assert stored_counts(disk.path, disk.through) == (tasks + 1, runs + 1)
    assert disk_api.ready() == (200, {"state": "ok", "hint": None})


@pytest.mark.needs("tmpfs")
def test_tasks_that_meet_a_full_disk_wait_and_are_done_when_there_is_room(disk, disk_api):
    """One prints all the while, one ends, one has not begun; a watcher sees all of it over one stream."""
    printing = disk_api.create(UNTIL_GO)
    held = {"goal": "```bash\necho begun; while [ -e wait ]; do sleep 0.05; done; echo ended\n```", "hold": True}
    ending = disk_api("POST", "/tasks/", json=held).json()["id"]
    assert disk_api.upload(ending, "wait").status_code == 201
    assert disk_api("POST", f"/tasks/{ending}/start").status_code == 200
    queued = disk_api.create(QUICK)
    for task_id in (printing, ending):
        wait_until(partial(disk_api.has_printed, task_id), what="output")
    with watched(disk_api, printing) as frames:
        disk.fill()
        wait_until(lambda: "could not be stored" in disk_api.server.log_text(), what="an event refused")
        assert disk_api("DELETE", f"/tasks/{ending}/files/content", params={"path": "wait"}).status_code == 200
        wait_until(lambda: disk_api.server.log_text().count("could not be stored") >= 2, what="its end refused")
        assert_refused(disk_api("POST", "/tasks/", json=BIG), 507, "disk_full")
        states = [disk_api.task(task_id)["status"] for task_id in (printing, ending, queued)]
        assert states == ["running", "running", "queued"]
        disk.make_room()
        assert disk_api.upload(printing, "go").status_code == 201
        ended = [disk_api.wait_for(task_id, "completed", "failed") for task_id in (printing, ending, queued)]

    assert [(task["status"], task["error"]) for task in ended] == [("completed", None)] * 3
    for task in ended:
        assert_whole(task)
    assert lines_of(disk_api, printing) == ["one", "two"]
    assert "ended" in ended[1]["result"]
    assert frames == ended[0]["events"]


@contextmanager
def watched(api: Api, task_id: int) -> Iterator[list[dict[str, Any]]]:
    """Watch a task from beginning to end beside the test; leaving waits for its end."""
    seen: list[dict[str, Any]] = []

    def watch() -> None:
        answer = api("GET", f"/tasks/{task_id}/stream", stream=True)
        seen.extend(json.loads(line[6:]) for line in answer.iter_lines() if line.startswith(b"data: "))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield seen
    watcher.join(MENDS_SECONDS)
    assert not watcher.is_alive(), f"the stream of task {task_id} did not end"


def create_and_fill(disk: SmallDisk, api: Api) -> int:
    """A running task whose events find no room any more."""
    task_id = api.create(UNTIL_GO)
    wait_until(partial(api.has_printed, task_id), what="output")
    disk.fill()
    wait_until(lambda: "could not be stored" in api.server.log_text(), what="an event refused")
    return task_id


@pytest.mark.needs("tmpfs")
def test_running_task_on_a_full_disk_can_be_stopped(disk, disk_api):
    task_id = create_and_fill(disk, disk_api)

    assert disk_api("POST", f"/tasks/{task_id}/stop").status_code == 200
    disk.make_room()

    stopped = disk_api.wait_for(task_id, "stopped")
    assert_whole(stopped)
    assert lines_of(disk_api, task_id) == ["one"]


@pytest.mark.needs("tmpfs")
def test_server_stops_on_a_full_disk_refuses_to_start_and_has_all_when_there_is_room(disk, disk_api):
    task_id = create_and_fill(disk, disk_api)

    assert disk_api.server.stop() == 0
    disk.fill()  # what closing gave back
    assert failed_start(disk) == [
        f"✗ The data folder {disk.path} cannot be written: No space left on device",
        "  Choose another with --data DIR or BERAY_DATA_DIR, or make room on its disk.",
    ]
    disk.make_room()
    disk_api.server.start()

    task = disk_api.wait_for(task_id, "completed", "failed")
    assert (task["error"] or {"code": None})["code"] == "rules_step_failed"  # its command was cut: told, not run again
    assert_whole(task)
    assert lines_of(disk_api, task_id) == ["one"]


def failed_start(disk: SmallDisk) -> list[str]:
    """What it says when it doesn't start."""
    command = [*disk.through, *BERAY, "serve", "--port", "0", "--data", str(disk.path)]
    environment = {**disk.server(model="rules", language="en", sandbox="auto").settings, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()


@pytest.mark.needs("tmpfs")
def test_start_on_a_read_only_folder_is_told(disk):
    disk.make_read_only()

    assert failed_start(disk) == [
        f"✗ The data folder {disk.path} cannot be written: Read-only file system",
        "  Choose another with --data DIR or BERAY_DATA_DIR, or give yourself the right to write there.",
    ]


@pytest.mark.needs("tmpfs")
def test_read_only_folder_is_told_and_works_again_when_it_is_writable(disk, disk_api):
    running = disk_api.create(UNTIL_GO)
    wait_until((disk.seen_at / "tasks" / str(running) / "work" / "log").exists, what="the first step")
    disk.make_read_only()

    accepted = disk_api("POST", "/tasks/", json={"goal": QUICK})
    assert_refused(disk_api.upload(running, "go"), 503, "disk_unavailable")
    status, check = disk_api.ready()
    assert (status, check["state"]) == (503, "failed")
    assert f"{disk.path} is mounted read-only" in check["hint"]
    assert disk_api.task(running)["status"] == "running"
    if accepted.status_code == 201:  # the file of the database is open; a task that was accepted waits for its folder
        assert disk_api.task(accepted.json()["id"])["status"] in {"queued", "running"}
    else:
        assert_refused(accepted, 503, "database_unavailable")
    disk.make_writable()

    assert disk_api.upload(running, "go").status_code == 201
    again = [disk_api.create(QUICK)] + ([accepted.json()["id"]] if accepted.status_code == 201 else [])
    for task_id in (running, *again):
        task = disk_api.wait_for(task_id, "completed", "failed")
        assert (task["status"], task["error"]) == ("completed", None)
        assert_whole(task)
    assert lines_of(disk_api, running) == ["one", "two"]
    assert disk_api.ready() == (200, {"state": "ok", "hint": None})


def test_database_that_cannot_be_written_is_told_and_works_again(make_server: Callable[..., ServerProcess]):
    """A disk that refuses every write: the kernel does so for the server's process while its limit is 0."""
    server = make_server().start()
    api = Api(server)
    running = api.create(UNTIL_GO)
    wait_until((server.data_dir / "tasks" / str(running) / "work" / "log").exists, what="the first step")
    before = stored_counts(server.data_dir)
    key = {"Idempotency-Key": "the-same"}
    with writes_refused(server):
        for method, path, body in (
            ("POST", "/tasks/", {"goal": QUICK}),
            ("POST", "/auth/login", {"email": "a@example.com", "password": PASSWORD}),
        ):
            assert_refused(api(method, path, json=body, headers=key), 503, "database_unavailable")
        status, check = api.ready()
        assert (status, check["state"]) == (503, "failed")
        assert "beray.db" in check["hint"]
        assert api.task(running)["status"] == "running"
        assert stored_counts(server.data_dir) == before
    answers = [api("POST", "/tasks/", json={"goal": QUICK}, headers=key) for _ in range(2)]
    assert api.upload(running, "go").status_code == 201

    assert answers[0].content == answers[1].content
    for task_id in (running, answers[0].json()["id"]):
        task = api.wait_for(task_id, "completed", "failed")
        assert (task["status"], task["error"]) == ("completed", None)
        assert_whole(task)
    assert lines_of(api, running) == ["one", "two"]
    assert api.ready() == (200, {"state": "ok", "hint": None})
    with BeRayClient(server.base_url) as client:
        assert len(client.login("a@example.com", PASSWORD)["access_token"]) > 20
    api.close()


@contextmanager
def writes_refused(server: ServerProcess) -> Iterator[None]:
    assert server.process is not None
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
