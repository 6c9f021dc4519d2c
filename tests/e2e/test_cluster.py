"""Two API processes and two workers on one database behave like one server."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import AuthenticationError, NotFoundError
from tests.support.cluster import ApiProcess, Cluster, WorkerProcess
from tests.support.server import PASSWORD
from tests.support.waiting import wait_until

HELLO = "Write a Python script that prints hi"
PER_USER = 3
STOP_SECONDS = 1.0  # as promised
_numbers = itertools.count(1)


def waiting_for(name: str) -> str:
    """A goal whose command runs until a file of that name is uploaded."""
    return f"```bash\necho begun\nwhile [ ! -e {name} ]; do sleep 0.05; done\n```"


class Users:
    """Makes users, each with a client at every API process."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._clients: list[BeRayClient] = []

    def make(self) -> list[BeRayClient]:
        number = next(_numbers)
        token = self._cluster.apis[number % 2].register(f"user-{number}@example.com")
        made = [BeRayClient(api.base_url, token=token, max_retries=0) for api in self._cluster.apis]
        self._clients += made
        return made

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def cluster(module_dir, postgres) -> Iterator[Cluster]:
    url = postgres.create_database()
    settings = {"max_running_tasks_per_user": PER_USER, "max_running_tasks": 4, "retention_days": 1}
    with Cluster(module_dir, url, apis=2, workers=2, **settings) as cluster:
        yield cluster
    postgres.drop_database(url)


@pytest.fixture
def users(cluster) -> Iterator[Users]:
    users = Users(cluster)
    yield users
    users.close()


def query(cluster: Cluster, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(cluster.database_url) as connection:
        return connection.execute(sql, values).fetchall()  # type: ignore[call-overload]  # a literal in each test


def run_to_its_wait(client: BeRayClient, name: str) -> int:
    """A task whose command waits for a file; its id once it runs."""
    task_id: int = client.create_task(waiting_for(name))["id"]
    for event in client.stream_task_updates(task_id):
        if event["type"] == "tool.output":
            return task_id
    raise AssertionError("the task ended before its command waited")


def test_watchers_of_any_api_see_every_event_once(users):
    first, second = users.make()
    task_id = first.create_task(HELLO)["id"]
    seen: dict[int, list[dict[str, Any]]] = {0: [], 1: []}

    def watch(index: int, client: BeRayClient) -> None:
        seen[index] = list(client.stream_task_updates(task_id))

    watchers = [threading.Thread(target=watch, args=item) for item in enumerate((first, second))]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60)

    assert seen[0] == seen[1] == second.get_task(task_id)["events"]
    assert [event["seq"] for event in seen[0]] == list(range(1, len(seen[0]) + 1))
    assert seen[0][-1]["type"] == "task.finished"


def test_stop_reaches_a_run_in_another_process_at_once(users, cluster):
    """The answer says `stopped` only once it is so; a look without the notice comes every 15 s."""
    _, client = users.make()
    task_id = run_to_its_wait(client, "never")

    asked_at = time.monotonic()
    answer = client.stop_task(task_id)
    seconds = time.monotonic() - asked_at

    assert answer["status"] == "stopped"
    assert seconds < STOP_SECONDS
    assert client.get_task(task_id)["status"] == "stopped"


def test_deleted_task_of_another_process_leaves_nothing(users, cluster):
    client, other = users.make()
    task_id = run_to_its_wait(client, "never")

    other.delete_task(task_id)

    with pytest.raises(NotFoundError):
        client.get_task(task_id)
    assert not (cluster.folder / "work_dirs" / str(task_id)).exists()
    assert query(cluster, "SELECT count(*) FROM event WHERE task_id = %s", task_id) == [(0,)]
    names = f"{task_id}.%"
    assert query(cluster, "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE %s", names) == [(0,)]


def output_so_far(client: BeRayClient, task_id: int) -> bytes:
    """What the task's first command has printed."""
    events = client.get_task(task_id)["events"]
    call_id = next(event["call_id"] for event in events if event["type"] == "tool.started")
    return as_user(client, "GET", f"/tasks/{task_id}/output/{call_id}").content


def as_user(client: BeRayClient, method: str, path: str, **request: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token}"}
    return requests.request(method, f"{client.base_url}/api/v1{path}", headers=headers, timeout=30, **request)


def test_account_deleted_at_one_process_is_nobodys_at_any(users, cluster):
    first, second = users.make()
    email, task_id = first.get_current_user()["email"], run_to_its_wait(first, "never")
    url, header = f"{first.base_url}/api/v1/tasks/{task_id}/stream", {"Authorization": f"Bearer {first.token}"}
    with requests.get(url, headers=header, stream=True, timeout=30) as stream:
        answer = as_user(second, "DELETE", "/users/me", json={"password": PASSWORD})

        assert answer.status_code == 200, answer.text
        for client in (first, second):
            with pytest.raises(AuthenticationError):
                client.list_tasks()
        assert "task.finished" not in stream.text, "read to its end: the other process has closed it"
    folder = cluster.folder / "work_dirs" / str(task_id)
    wait_until(lambda: query(cluster, "SELECT id FROM task WHERE id = %s", task_id) == [], what="the task to go")
    assert not folder.exists()
    assert query(cluster, "SELECT count(*) FROM event WHERE task_id = %s", task_id) == [(0,)]
    assert query(cluster, "SELECT id FROM user_account WHERE email = %s", email) == []
    assert cluster.apis[0].register(email) != first.token


def test_files_and_logouts_are_the_same_everywhere(users):
    first, second = users.make()
    task_id = run_to_its_wait(first, "go")
    first.upload_file(task_id, "notes.txt", "read me")

    assert second.get_file_content(task_id, "notes.txt").text == "read me"
    assert output_so_far(second, task_id) == b"begun\n"
    made = first.create_token("everywhere")
    url, header = f"{second.base_url}/api/v1/tasks/{task_id}/stream", {"Authorization": f"Bearer {made['token']}"}
    with (
        BeRayClient(second.base_url, token=made["token"], max_retries=0) as program,
        requests.get(url, headers=header, stream=True, timeout=30) as stream,
    ):
        assert [task["id"] for task in program.list_tasks()] == [task_id]
        first.delete_token(made["id"])
        with pytest.raises(AuthenticationError):
            program.list_tasks()
        assert "task.finished" not in stream.text, "read to its end: the other process has closed it"
    second.stop_task(task_id)
    first.logout()
    with pytest.raises(AuthenticationError):
        second.list_tasks()


def test_admins_see_every_process_and_lose_the_role_at_all_of_them_at_once(users, cluster):
    pairs = [users.make() for _ in range(2)]
    ids = [pair[0].get_current_user()["id"] for pair in pairs]
    task_id = run_to_its_wait(pairs[1][0], "never")
    with psycopg.connect(cluster.database_url) as connection:
        connection.execute("UPDATE user_account SET is_admin = true WHERE id = ANY(%s)", [ids])

    def ask(client: BeRayClient, method: str, path: str, **request: Any) -> requests.Response:
        url, headers = f"{client.base_url}/api/v1/admin/{path}", {"Authorization": f"Bearer {client.token}"}
        return requests.request(method, url, headers=headers, timeout=30, **request)

    seen = [ask(client, "GET", "overview").json() for client in pairs[0]]
    stopped = ask(pairs[0][1], "POST", f"tasks/{task_id}/stop").json()
    demoted = [ask(pairs[0][0], "PUT", f"users/{ids[1]}", json={"is_admin": False}).status_code]
    demoted += [ask(client, "GET", "overview").status_code for client in pairs[1]]

    for overview in seen:
        assert Counter(one["role"] for one in overview["processes"]) == {"api": 2, "worker": 2}
        assert {one["running"] for one in overview["processes"] if one["role"] == "api"} == {0}
        assert sum(one["running"] for one in overview["processes"]) == overview["tasks"]["running"] == 1
        assert all(one["beat_seconds"] < 10 for one in overview["processes"])
        assert overview["storage"]["database_bytes"] > 0
    assert stopped["status"] == "stopped"
    assert demoted == [200, 404, 404]


def test_same_key_from_20_threads_at_two_apis_makes_one_task(users, cluster):
    first, second = users.make()
    barrier = threading.Barrier(20)
    answers: list[requests.Response] = []

    def create(client: BeRayClient) -> None:
        barrier.wait(30)
        answers.append(
            requests.post(
                f"{client.base_url}/api/v1/tasks/",
                json={"goal": HELLO},
                headers={"Authorization": f"Bearer {client.token}", "Idempotency-Key": "one"},
                timeout=30,
            )
        )

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(create, [first, second] * 10))

    assert [answer.status_code for answer in answers] == [201] * 20
    assert len({answer.content for answer in answers}) == 1
    assert len(first.list_tasks()) == 1
    [task] = first.list_tasks()
    list(second.stream_task_updates(task["id"]))
    events = first.get_task(task["id"])["events"]
    assert [event["type"] for event in events].count("task.started") == 1


def test_flood_of_one_user_delays_no_other_and_keeps_to_the_limit(users, cluster):
    flooder, _ = users.make()
    other, _ = users.make()
    flood = [flooder.create_task(waiting_for("go"))["id"] for _ in range(20)]
    wait_until(lambda: counts(flooder)["running"] == PER_USER, what="as many running as may be")

    task_id = other.create_task(HELLO)["id"]
    list(other.stream_task_updates(task_id))

    assert other.get_task(task_id)["status"] == "completed"
    assert counts(flooder) == {"running": PER_USER, "queued": 20 - PER_USER}
    running = query(
        cluster,
        "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING' AND queue_partition_key ="
        " (SELECT user_id::text FROM task WHERE id = %s)",
        flood[0],
    )
    assert running == [(PER_USER,)], "the limit holds over all processes"
    for one in flood:
        flooder.delete_task(one)


def counts(client: BeRayClient) -> dict[str, int]:
    return dict(Counter(task["status"] for task in client.list_tasks()))


def test_old_tasks_are_purged_daily(users, cluster):
    client, _ = users.make()
    old, young = (client.create_task(HELLO)["id"] for _ in range(2))
    for task_id in (old, young):
        list(client.stream_task_updates(task_id))
    with psycopg.connect(cluster.database_url) as connection:
        connection.execute("UPDATE task SET finished_at = finished_at - 2 * 86400000 WHERE id = %s", [old])
    api = cluster.apis[0]

    assert api.stop() == 0
    api.start()

    wait_until(
        lambda: [task["id"] for task in client_of(api, client).list_tasks()] == [young], seconds=90, what="the purge"
    )
    wait_until(lambda: not (cluster.folder / "work_dirs" / str(old)).exists(), what="its folder to go")


def client_of(api: ApiProcess, client: BeRayClient) -> BeRayClient:
    return BeRayClient(api.base_url, token=client.token)


def readiness(process: ApiProcess | WorkerProcess) -> dict[str, Any]:
    answer = requests.get(f"{process.base_url}/ready", timeout=10)
    return {"status_code": answer.status_code, **answer.json()["checks"]}


def has_hint(process: ApiProcess, check: str, part: str) -> Callable[[], bool]:
    return lambda: part in (readiness(process)[check]["hint"] or "")


def test_process_with_other_work_dirs_is_told_by_ready(cluster, users, service_dir):
    """It says that it is not ready and takes no task; the others say which one it is, and go on."""
    client, _ = users.make()
    settings = {**cluster.settings, "work_dirs": service_dir / "elsewhere"}
    stranger = WorkerProcess(service_dir / "stranger", **settings)
    for worker in cluster.workers:
        assert worker.stop() == 0
    waiting = [client.create_task(HELLO)["id"] for _ in range(3)]
    stranger.launch()
    try:
        stranger.base_url = wait_until(stranger._find_url, seconds=40, what="the stranger's address")
        wait_until(lambda: readiness(stranger)["engine"]["state"] == "ok", seconds=40, what="its engine")
        assert readiness(stranger)["work_dirs"]["state"] == "failed", "known before its engine started"
        for worker in cluster.workers:
            worker.start()
        for task_id in waiting:
            list(client.stream_task_updates(task_id))
            assert client.get_file_content(task_id, "hello.py").text
        wait_until(has_hint(cluster.apis[0], "work_dirs", "BERAY_WORK_DIRS"), seconds=40, what="the hint")
        assert str(stranger.process.pid) in readiness(cluster.apis[0])["work_dirs"]["hint"]  # type: ignore[union-attr]  # it runs
        assert readiness(cluster.apis[0])["status_code"] == 200
        assert readiness(stranger)["status_code"] == 503
        made = [client.create_task(HELLO)["id"] for _ in range(6)]
        for task_id in made:
            list(client.stream_task_updates(task_id))
        assert not (service_dir / "elsewhere" / str(made[0])).exists()
        assert sorted(path.name for path in (service_dir / "elsewhere").iterdir()) == [".processes"]
    finally:
        stranger.stop()
    wait_until(lambda: readiness(cluster.apis[0])["work_dirs"]["hint"] is None, seconds=20, what="no hint any more")


def test_worker_leaves_the_data_folder_to_an_api_beside_it(cluster):
    """`beray run` on this machine finds the API by its server.json."""
    api = ApiProcess(cluster.workers[0].data_dir, **cluster.settings)
    api.start()
    try:
        told = json.loads((api.data_dir / "server.json").read_text())
        assert told["base_url"] == api.base_url
    finally:
        api.stop()


def test_api_without_workers_takes_tasks_and_says_that_they_wait(cluster, users):
    client, _ = users.make()
    first, second = cluster.workers
    assert (first.stop(), second.stop()) == (0, 0)
    try:
        wait_until(has_hint(cluster.apis[0], "workers", "No worker"), what="the hint")
        assert readiness(cluster.apis[0])["status_code"] == 200
        task_id = client.create_task(HELLO)["id"]
        assert client.get_task(task_id)["status"] == "queued"
    finally:
        first.start()
        second.start()
    list(client.stream_task_updates(task_id))
    assert client.get_task(task_id)["status"] == "completed"


def test_worker_that_ends_hands_its_runs_over_at_once(cluster, users):
    """A worker that is told to end says good-bye, so nobody waits for its lease."""
    client, _ = users.make()
    task_id = run_to_its_wait(client, "never")
    [(executor,)] = query(
        cluster, "SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = %s", f"{task_id}.1"
    )
    [(pid,)] = query(cluster, "SELECT pid FROM process WHERE id = %s", executor)
    [leaver] = [one for one in cluster.workers if one.process is not None and one.process.pid == pid]

    assert leaver.stop() == 0
    try:
        events = list(client.stream_task_updates(task_id))
    finally:
        leaver.start()

    assert [event["attempt"] for event in events if event["type"] == "task.started"] == [1, 2]
    [finished] = [event for event in events if event["type"] == "tool.finished"]
    assert finished["ok"] is False
