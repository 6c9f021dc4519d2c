"""PostgreSQL goes away and comes back: everything goes on by itself, and nobody was told a lie meanwhile."""

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from tests.e2e.test_zombie import Follower, waiting_step
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresCluster
from tests.support.scripted_model import Reply, ScriptedModel, turns
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

_numbers = itertools.count(1)


@pytest.fixture
def own_postgres(service_dir, postgres) -> Iterator[PostgresCluster]:
    """One that nobody else uses; `postgres` sees to it that there is one at all."""
    cluster = PostgresCluster(service_dir / f"own-postgres-{next(_numbers)}").start()
    yield cluster
    cluster.stop()


def ready(process: ServerProcess) -> tuple[int, str]:
    answer = requests.get(f"{process.base_url}/ready", timeout=10)
    return answer.status_code, answer.json()["checks"]["database"]["state"]


def wait_ready(cluster: Cluster, *, status: int) -> None:
    state = {200: "ok", 503: "failed"}[status]
    for process in cluster.processes:
        wait_until(lambda process=process: ready(process) == (status, state), seconds=40, what=f"{state} in /ready")  # type: ignore[misc]  # bound early


@pytest.fixture
def scene(service_dir, own_postgres) -> Iterator[tuple[Cluster, BeRayClient]]:
    script = turns(waiting_step("one"), waiting_step("two"), Reply("Both steps are done."))
    url = own_postgres.create_database()
    with ScriptedModel(script) as model:
        settings = {"model": "openai:scripted", "model_base_url": model.base_url, "model_api_key": "key"}
        folder = service_dir / f"restart-{own_postgres.port}"
        with (
            Cluster(folder, url, apis=1, workers=2, **settings) as cluster,
            BeRayClient(cluster.apis[0].base_url, token=cluster.apis[0].register("a@example.com")) as client,
        ):
            yield cluster, client


def ask_while_away(client: BeRayClient, task_id: int) -> list[requests.Response]:
    headers = {"Authorization": f"Bearer {client.token}"}
    api = f"{client.base_url}/api/v1"
    goal, login = {"goal": "Not now"}, {"email": "a@example.com", "password": "wrong"}
    with ThreadPoolExecutor(4) as pool:  # each is refused only when it has waited
        asked = [
            pool.submit(requests.get, f"{api}/tasks/{task_id}", headers=headers, timeout=30),
            pool.submit(requests.get, f"{api}/tasks/{task_id}/stream", headers=headers, timeout=30),
            pool.submit(requests.post, f"{api}/tasks/", json=goal, headers=headers, timeout=30),
            pool.submit(requests.post, f"{api}/auth/login", json=login, timeout=30),
        ]
    return [answer.result() for answer in asked]


def check_refused(answers: list[requests.Response]) -> None:
    for answer in answers:
        body: dict[str, Any] = answer.json()
        assert (answer.status_code, body["code"]) == (503, "database_unavailable"), body
        assert int(answer.headers["Retry-After"]) > 0


def begin(client: BeRayClient) -> Follower:
    """Follow a task whose first step runs."""
    follower = Follower(client, client.create_task("Two steps")["id"])
    follower.wait_for("tool.started")
    wait_until(lambda: client.list_files_tree(follower.task_id), what="what the step writes at its beginning")
    return follower


def finish(client: BeRayClient, follower: Follower) -> None:
    """Let the steps end, and look at the whole."""
    task_id = follower.task_id
    for name in ("one", "two"):
        client.upload_file(task_id, name, b"")
    follower.join()
    assert client.get_task(task_id)["status"] == "completed"
    assert [event["seq"] for event in follower.events] == list(range(1, len(follower.events) + 1))
    assert [event["type"] for event in follower.events].count("task.finished") == 1
    assert client.get_file_content(task_id, "log").text.split() == ["one", "two"]
    assert [task["id"] for task in client.list_tasks()] == [task_id], "what was refused was not done"


@contextmanager
def frozen(postgres: PostgresCluster) -> Iterator[None]:
    """It takes connections and statements, and answers nothing."""
    postmaster = int((postgres.data_dir / "postmaster.pid").read_text().split()[0])
    listed = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    pids = [postmaster, *map(int, listed)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_crash_and_silence_of_postgres_are_survived_without_a_word_lost(scene, own_postgres):
    cluster, client = scene
    follower = begin(client)

    own_postgres.kill()
    wait_ready(cluster, status=503)
    check_refused(ask_while_away(client, follower.task_id))
    own_postgres.start()
    wait_ready(cluster, status=200)
    with frozen(own_postgres):  # as good as away
        wait_ready(cluster, status=503)
        headers = {"Authorization": f"Bearer {client.token}"}
        check_refused([requests.get(f"{client.base_url}/api/v1/tasks/{follower.task_id}", headers=headers, timeout=60)])
    wait_ready(cluster, status=200)

    finish(client, follower)


def test_outage_longer_than_the_lease_cuts_the_runs_and_they_go_on(scene, own_postgres):
    cluster, client = scene
    follower = begin(client)

    own_postgres.stop()
    for worker in cluster.workers:
        wait_until(
            lambda worker=worker: "runs of this process are cut" in worker.log_text(), seconds=40, what="a fence"
        )  # type: ignore[misc]  # bound early
    own_postgres.start()
    wait_ready(cluster, status=200)

    assert follower.wait_for("tool.finished")["ok"] is False
    follower.wait_for("task.started", attempt=2)
    finish(client, follower)


def test_processes_end_when_told_to_though_postgres_is_away(scene, own_postgres):
    """The engine library would wait for it, in threads that cannot be ended."""
    cluster, client = scene
    begin(client)
    own_postgres.kill()
    wait_ready(cluster, status=503)

    assert [process.stop() for process in cluster.processes] == [0, 0, 0]
