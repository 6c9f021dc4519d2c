"""Talking to tasks at any process: PostgreSQL, two API processes, two workers."""

import os
import signal

import psycopg
import pytest

from beray.client import BeRayClient
from tests.support.cluster import Cluster
from tests.support.scripted_model import Reply, ScriptedModel, call
from tests.support.waiting import wait_until


def script(request: dict, number: int) -> Reply:
    """Ask for the colour, then say what was answered; later goals are repeated."""
    messages = request["messages"]
    if messages[-1]["role"] == "tool":
        return Reply(messages[-1]["content"])
    said = [message["content"] for message in messages if message["role"] == "user"]
    if len(said) == 1:
        return Reply(calls=[call("ask_user", question="Which colour?")])
    return Reply(" and ".join(said))


@pytest.fixture
def clients(service_dir, postgres_url):
    """A client at each API process, of one user, and the cluster."""
    with ScriptedModel(script) as model:
        settings = {"model": "openai:scripted", "model_base_url": model.base_url, "model_api_key": "key"}
        with Cluster(service_dir / "talk", postgres_url, apis=2, workers=2, **settings) as cluster:
            token = cluster.apis[0].register("a@example.com")
            with (
                BeRayClient(cluster.apis[0].base_url, token=token) as first,
                BeRayClient(cluster.apis[1].base_url, token=token) as second,
            ):
                yield cluster, first, second


def kill_owner(cluster: Cluster, task_id: int) -> None:
    """Kill the worker that runs the task."""
    with psycopg.connect(cluster.database_url) as connection:
        [(pid,)] = connection.execute(
            "SELECT p.pid FROM dbos.workflow_status w JOIN process p ON p.id = w.executor_id"
            " WHERE w.workflow_uuid = %s AND w.status = 'PENDING'",
            [f"{task_id}.1"],
        ).fetchall()
    os.kill(pid, signal.SIGKILL)


def test_answer_at_another_process_also_after_the_worker_died_waiting(clients):
    cluster, first, second = clients
    task_id = first.create_task("Paint it")["id"]
    other = first.create_task("Paint that")["id"]
    for each in (task_id, other):
        assert any(event["type"] == "input.requested" for event in first.stream_task_updates(each))
    second.send_message(other, "green")
    assert list(first.stream_task_updates(other))[-1]["result"] == "The user answers:\ngreen"

    kill_owner(cluster, task_id)
    wait_until(lambda: first.get_task(task_id, events="none")["attempt"] == 2, seconds=60, what="a takeover")
    assert second.get_task(task_id)["status"] == "waiting"
    second.send_message(task_id, "red")

    events = list(first.stream_task_updates(task_id))
    assert events[-1]["result"] == "The user answers:\nred"
    assert [event["type"] for event in events].count("input.requested") == 1

    assert second.send_message(task_id, "Once more")["run"] == 2
    after = list(first.stream_task_updates(task_id, after=events[-1]["seq"]))
    assert after[-1]["result"] == "Paint it and Once more"
    assert [event["seq"] for event in [*events, *after]] == list(range(1, len(events) + len(after) + 1))
