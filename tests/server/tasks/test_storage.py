"""Whoever has filled their store can write no more, in any way, until they make room."""

import pytest

from beray.client import BeRayClient
from beray.exceptions import APIError
from tests.server.tasks.test_tasks import HELLO, finish
from tests.support.scripted_model import Reply, ScriptedModel, call, results_of

MOST = 8 << 20
FILL = "```bash\nhead -c 60000000 /dev/zero > big; sleep 60\n```"


@pytest.fixture
def small_store(make_server):
    server = make_server(max_stored_bytes=MOST).start()
    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        yield server, client


def test_full_store_ends_commands_and_takes_no_task_until_there_is_room(small_store):
    server, client = small_store
    first = client.create_task(FILL)["id"]
    ended = next(event for event in finish(client, first) if event["type"] == "tool.finished")

    assert "8 MiB" in ended["summary"]
    with pytest.raises(APIError, match="413 storage_full"):
        client.create_task(HELLO)
    with BeRayClient(server.base_url, token=server.register("b@example.com")) as other:
        assert finish(other, other.create_task(HELLO)["id"])[-1]["status"] == "completed"
    client.delete_file(first, "big")
    assert finish(client, client.create_task(HELLO)["id"])[-1]["status"] == "completed"


def test_commands_that_end_before_they_are_looked_at_do_not_add_up(small_store):
    """Each is fast enough to pass a look; what is over stays over, and the next may not write on."""
    _, client = small_store
    quick = "\n".join(f"```bash\nhead -c 15000000 /dev/zero > f{number}; echo ok\n```" for number in range(6))
    task_id = client.create_task(quick)["id"]
    outputs = [event for event in finish(client, task_id) if event["type"] == "tool.finished"]

    assert len(outputs) >= 1
    sizes = [node["size"] for node in client.list_files_tree(task_id)]
    assert sum(sizes) < 40 << 20, sizes


def test_commands_that_go_on_writing_small_files_are_not_started_any_more(make_server):
    """The model goes on whatever it is told: the sandbox may end such a command, but need not look at it in time.

    What others write and delete on the same disk can hide that one has written on, so how many are started is counted
    in test_disk_room.py, where nobody else is.
    """
    refused = "Error: No command was started"

    def script(request, number):
        told = results_of(request)
        if len(told) == 40 or (len(told) > 1 and told[-2].startswith(refused)):
            return Reply("done")
        return Reply(calls=[call("shell", command=f"head -c 9000000 /dev/zero | split -b 60000 - {number}.")])

    with ScriptedModel(script) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, max_stored_bytes=MOST).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task("fill it")["id"]
            finish(client, task_id)
            names = [node["path"] for node in client.list_files_tree(task_id)]

    told = results_of(model.requests[-1])
    assert [answer.startswith(refused) for answer in told] == [False] * (len(told) - 2) + [True] * 2
    assert {int(name.partition(".")[0]) for name in names} <= set(range(len(told) - 2))


def test_held_task_is_not_started_into_a_full_store(small_store):
    _, client = small_store
    held = client.create_task(HELLO, hold=True)["id"]
    finish(client, client.create_task(FILL)["id"])

    with pytest.raises(APIError, match="413 storage_full"):
        client.start_task(held)
    assert client.get_task(held)["status"] == "queued"


def test_tasks_that_never_run_count_too(make_server):
    server = make_server(max_stored_bytes=1 << 20).start()
    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        goals = ["测" * 100_000] * 3
        for goal in goals:
            client.create_task(goal, hold=True)
        client.create_task(goals[0], hold=True)

        with pytest.raises(APIError, match="413 storage_full"):
            client.create_task("x", hold=True)
