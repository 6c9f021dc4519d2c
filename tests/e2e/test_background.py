"""Commands in the background, in a real sandbox: alive beside others, dead with their task and with their server."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beray.client import BeRayClient
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

DEAD_SECONDS = 10.0  # of a crowded machine


def script(request: dict[str, Any], number: int) -> Reply:
    """Starts a command in the background that shrugs signals off, runs another to its end, and waits for `go`.

    The goal stands in the background command's command line, by which it is found among all processes.
    """
    goal = next(message["content"] for message in request["messages"] if message["role"] == "user")
    stubborn = f"trap '' TERM HUP INT; : {goal}; (setsid sh -c ': {goal}; while :; do sleep 0.1; done' &); "
    return turns(
        Reply(calls=[call("shell", command=stubborn + "while :; do sleep 0.1; done", background=True)]),
        Reply(calls=[call("shell", command="true")]),
        Reply(calls=[call("shell", command="echo here; while [ ! -e go ]; do sleep 0.05; done")]),
        Reply("done"),
    )(request, number)


def alive(goal: str) -> list[str]:
    """Processes whose command line names the goal."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if goal.encode() in line:
            found.append(path.parent.name)
    return found


@pytest.fixture(scope="module")
def scripted_model() -> Iterator[ScriptedModel]:
    with ScriptedModel(script) as running:
        yield running


@pytest.fixture
def begin(make_server: Callable[..., ServerProcess], scripted_model: ScriptedModel) -> Iterator[Callable[..., Any]]:
    """Starts a server with a backend: itself, a client, and what makes a task whose background command runs."""
    clients: list[BeRayClient] = []

    def begin(backend: str) -> tuple[ServerProcess, BeRayClient, Callable[[], tuple[int, str]]]:
        server = make_server(
            sandbox=backend, model="openai:scripted", model_base_url=scripted_model.base_url, model_api_key="key"
        ).start()
        client = BeRayClient(server.base_url, token=server.register("a@example.com"))
        clients.append(client)

        def task() -> tuple[int, str]:
            goal = f"goal-{uuid.uuid4().hex}"
            task_id = client.create_task(goal)["id"]
            for event in client.stream_task_updates(task_id):
                if event["type"] == "tool.output" and event["delta"] == "here\n":
                    break
            assert len(alive(goal)) >= 2  # after the end of another command, too
            return task_id, goal

        return server, client, task

    yield begin
    for client in clients:
        client.close()


def stop(client: BeRayClient, task_id: int) -> None:
    client.stop_task(task_id)


def delete(client: BeRayClient, task_id: int) -> None:
    client.delete_task(task_id)


def end(client: BeRayClient, task_id: int) -> None:
    client.upload_file(task_id, "go", b"")
    *_, last = client.stream_task_updates(task_id)
    assert last["status"] == "completed"


@pytest.mark.parametrize(
    ("backend", "ways"),
    [
        pytest.param("bubblewrap", [stop, delete, end], marks=pytest.mark.needs("bubblewrap"), id="bubblewrap"),
        pytest.param("landlock", [stop], marks=pytest.mark.needs("landlock"), id="landlock"),
    ],
)
def test_background_commands_die_with_their_task_and_with_the_server(begin, backend, ways):
    server, client, task = begin(backend)

    for way in ways:
        task_id, goal = task()
        way(client, task_id)
        wait_until(lambda goal=goal: not alive(goal), seconds=DEAD_SECONDS, what=f"the end of it after {way.__name__}")

    _, goal = task()
    server.kill()
    wait_until(lambda: not alive(goal), seconds=DEAD_SECONDS, what="the end of it after the server's")
