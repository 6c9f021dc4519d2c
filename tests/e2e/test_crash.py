"""A server killed in the middle of a task: after the restart the task goes on, and no finished step runs twice."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.server.clock import system_clock
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

THREE_STEPS = turns(
    Reply(calls=[call("shell", command="echo one >> log; cat log")]),
    Reply(calls=[call("shell", command="echo two >> log; cat log")]),
    Reply(calls=[call("shell", command="echo three >> log; cat log")]),
    Reply("All three steps are done."),
)


def hang_once(script: Callable[[dict[str, Any], int], Reply], *, at: int) -> Callable[[dict[str, Any], int], Reply]:
    """The same script, but the request that comes `at` that place in the conversation gets no answer the first time."""
    has_hung = threading.Event()

    def hanging(request: dict[str, Any], number: int) -> Reply:
        answered = sum(message["role"] == "assistant" for message in request["messages"])
        if answered == at and not has_hung.is_set():
            has_hung.set()
            return Reply("never heard", hangs_after=1)
        return script(request, number)

    return hanging


def configured(make_server: Callable[..., ServerProcess], model: ScriptedModel) -> ServerProcess:
    return make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="key").start()


def log_of(client: BeRayClient, task_id: int) -> list[str]:
    return client.get_file_content(task_id, "log").text.split()


@pytest.mark.parametrize(("place", "end"), [(1, "kill"), (2, "kill"), (3, "kill"), (2, "stop")])
def test_task_goes_on_where_it_was(make_server, place, end):
    """Cut while the model is asked for the step after `place` finished ones."""
    with ScriptedModel(hang_once(THREE_STEPS, at=place)) as model:
        server = configured(make_server, model)
        token = server.register("a@example.com")
        with BeRayClient(server.base_url, token=token) as client:
            task_id = client.create_task("Three steps")["id"]
            wait_until(lambda: len(model.requests) == place + 1, what="the request that gets no answer")
        getattr(server, end)()
        server.start()

        with BeRayClient(server.base_url, token=token) as client:
            events = list(client.stream_task_updates(task_id))
            task = client.get_task(task_id)

            assert (task["status"], task["result"]) == ("completed", "All three steps are done.")
            assert log_of(client, task_id) == ["one", "two", "three"]
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            assert [event["attempt"] for event in events if event["type"] == "task.started"] == [1, 2]
            assert [event["type"] for event in events].count("task.finished") == 1
            assert task["usage"]["tool_calls"] == 3
            assert len(model.requests) == 5


def test_attack_13_command_that_was_running_is_reported_and_not_run_again(make_server):
    script = turns(
        Reply(calls=[call("shell", command="echo begun >> log; echo begun; sleep 300")]),
        Reply("I looked, and went on."),
    )
    with ScriptedModel(script) as model:
        server = configured(make_server, model)
        token = server.register("a@example.com")
        with BeRayClient(server.base_url, token=token) as client:
            task_id = client.create_task("A long step")["id"]
            for event in client.stream_task_updates(task_id):
                if event["type"] == "tool.output":
                    break
        server.kill()
        server.start()

        with BeRayClient(server.base_url, token=token) as client:
            events = list(client.stream_task_updates(task_id))

            assert client.get_task(task_id)["status"] == "completed"
            assert log_of(client, task_id) == ["begun"]
            told = json.dumps(model.requests[-1]["messages"][-1])
            assert "interrupted" in told.lower()
            finished = [event for event in events if event["type"] == "tool.finished"]
            assert [event["ok"] for event in finished] == [False]


def test_queued_tasks_run_after_a_restart(make_server):
    """What was accepted is done, even if the server died before it could begin."""
    server: ServerProcess = make_server(max_running_tasks_per_user=1).start()
    token = server.register("a@example.com")
    with BeRayClient(server.base_url, token=token) as client:
        first = client.create_task("```bash\nwhile [ ! -e go ]; do sleep 0.05; done\n```")["id"]
        waiting = [client.create_task("Write a Python script that prints hi")["id"] for _ in range(3)]
    server.kill()
    server.start()

    with BeRayClient(server.base_url, token=token) as client:
        client.stop_task(first)
        for task_id in waiting:
            list(client.stream_task_updates(task_id))
            assert client.get_task(task_id)["status"] == "completed"


def test_deletions_cut_by_a_crash_are_finished_after_the_restart(make_server):
    """Of a task, of an account with one, and of an account that had none."""
    from sqlalchemy import text

    from beray.server.db.accounts import close_account
    from beray.server.db.auth import UserRow
    from beray.server.db.sqlite import sqlite_engine

    server: ServerProcess = make_server().start()
    task_ids = []
    for email in ("a@example.com", "b@example.com"):
        with BeRayClient(server.base_url, token=server.register(email)) as client:
            task_ids.append(client.create_task("Write a Python script that prints hi")["id"])
            list(client.stream_task_updates(task_ids[-1]))
    server.register("c@example.com")
    server.kill()
    engine = sqlite_engine(server.data_dir / "beray.db")
    with engine.begin() as connection:  # hidden, or closed, and then the process died
        connection.execute(
            text("UPDATE task SET deleted_at = 1, stop_requested = 1 WHERE id = :id"), {"id": task_ids[0]}
        )
        for user_id, email in ((2, "b@example.com"), (3, "c@example.com")):
            close_account(connection, UserRow(user_id, email, 0), now=system_clock())
    engine.dispose()
    server.start()

    reader = sqlite_engine(server.data_dir / "beray.db", is_read_only=True)

    def left() -> list[str]:
        with reader.begin() as connection:
            rows = connection.execute(text("SELECT goal FROM task UNION SELECT email FROM user_account ORDER BY 1"))
            return list(rows.scalars())

    kept = ["a@example.com", "deleted 2"]  # what that one has used today counts until the day is over
    wait_until(lambda: left() == kept, what="the rows to go")
    assert not any((server.data_dir / "tasks" / str(task_id)).exists() for task_id in task_ids)
    reader.dispose()
