"""A worker that was frozen past its lease wakes up: its runs are others' now, and it changes nothing of them."""

import contextlib
import signal
import threading
from typing import Any

import psycopg

from beray.client import BeRayClient
from beray.exceptions import BeRayException
from tests.support.cluster import Cluster, WorkerProcess
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.waiting import wait_until

TABLES = ("task", "event", "tool_call", "checkpoint", "dbos.workflow_status", "dbos.operation_outputs")


def waiting_step(name: str) -> Reply:
    return Reply(calls=[call("shell", command=f"echo {name} >> log; while [ ! -e {name} ]; do sleep 0.05; done")])


class Follower:
    """One watcher of a task."""

    def __init__(self, client: BeRayClient, task_id: int) -> None:
        self.task_id = task_id
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._follow, args=(client, task_id), daemon=True)
        self._thread.start()

    def _follow(self, client: BeRayClient, task_id: int) -> None:
        with contextlib.suppress(BeRayException):  # what is missing then, the test sees
            for event in client.stream_task_updates(task_id):
                self.events.append(event)

    def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["type"] == kind and fields.items() <= event.items()]

        return wait_until(found, seconds=60, what=f"{kind} with {fields}")[0]

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def rows(cluster: Cluster) -> dict[str, list[Any]]:
    with psycopg.connect(cluster.database_url) as connection:
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in TABLES}


def owner_of(cluster: Cluster, task_id: int) -> WorkerProcess:
    """The worker that runs the task."""
    with psycopg.connect(cluster.database_url) as connection:
        [(pid,)] = connection.execute(
            "SELECT p.pid FROM dbos.workflow_status w JOIN process p ON p.id = w.executor_id"
            " WHERE w.workflow_uuid = %s",
            [f"{task_id}.1"],
        ).fetchall()
    return next(one for one in cluster.workers if one.process is not None and one.process.pid == pid)


def signal_to(worker: WorkerProcess, number: signal.Signals) -> None:
    assert worker.process is not None
    worker.process.send_signal(number)


def test_frozen_worker_changes_nothing_when_it_wakes(service_dir, postgres_url):
    script = turns(waiting_step("one"), waiting_step("two"), Reply("Both steps are done."))
    with ScriptedModel(script) as model:
        settings = {"model": "openai:scripted", "model_base_url": model.base_url, "model_api_key": "key"}
        with (
            Cluster(service_dir / "zombie", postgres_url, workers=2, **settings) as cluster,
            BeRayClient(cluster.apis[0].base_url, token=cluster.apis[0].register("a@example.com")) as client,
        ):
            task_id = client.create_task("Two steps")["id"]
            follower = Follower(client, task_id)
            follower.wait_for("tool.started")
            zombie = owner_of(cluster, task_id)
            wait_until(lambda: client.list_files_tree(task_id), what="step one to have begun")
            [heir] = [one for one in cluster.workers if one is not zombie]

            signal_to(zombie, signal.SIGSTOP)
            follower.wait_for("task.started", attempt=2)
            cut = follower.wait_for("tool.finished")
            wait_until(lambda: client.get_file_content(task_id, "log").text.split() == ["one", "two"], what="step two")
            uncounted = rows(cluster)["task"]
            client.upload_file(task_id, "one", b"")  # the frozen worker's command ends, unheard
            wait_until(lambda: rows(cluster)["task"] != uncounted, what="the upload to be counted")
            before = rows(cluster)
            signal_to(zombie, signal.SIGCONT)
            wait_until(lambda: "goes on" in zombie.log_text(), seconds=30, what="the worker to hold its lease again")

            assert "runs of this process are cut" in zombie.log_text()
            assert cut["ok"] is False
            assert rows(cluster) == before
            assert owner_of(cluster, task_id) is heir

            client.upload_file(task_id, "two", b"")
            follower.join()
            assert [event["seq"] for event in follower.events] == list(range(1, len(follower.events) + 1))
            assert [event["type"] for event in follower.events].count("task.finished") == 1
            assert client.get_task(task_id)["status"] == "completed"
            assert client.get_file_content(task_id, "log").text.split() == ["one", "two"]

            heir.kill()  # the one that was frozen works on
            again = client.create_task("Two steps again")["id"]
            client.upload_file(again, "one", b"")
            client.upload_file(again, "two", b"")
            assert [event["type"] for event in client.stream_task_updates(again)][-1] == "task.finished"
            assert client.get_task(again)["status"] == "completed"
