"""The event stream on the wire: replay, resume, live tail, end."""

import json
import re
import sys
import threading

import pytest
import requests

from beray.protocol.sse import HEARTBEAT, EventStreamDecoder
from beray.server.tasks.stream import Streams
from tests.server.tasks.test_tasks import HELLO, begun, finish
from tests.support.server import PASSWORD, ServerProcess
from tests.support.waiting import wait_until


def open_stream(client, task_id, **request):
    headers = {"Authorization": f"Bearer {client.token}", **request.pop("headers", {})}
    url = f"{client.base_url}/api/v1/tasks/{task_id}/stream"
    return requests.get(url, headers=headers, stream=True, timeout=30, **request)


def data_lines(answer) -> list[dict]:
    """What a client sees that reads only `data:` lines."""
    lines = answer.content.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_stream_replays_all_and_ends(client):
    task_id = client.create_task(HELLO)["id"]
    events = finish(client, task_id)

    answer = open_stream(client, task_id)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.startswith(b"retry: 1000\n")
    assert data_lines(answer) == events


def test_frames_carry_id_and_type(client):
    task_id = client.create_task(HELLO)["id"]
    finish(client, task_id)

    decoded = list(EventStreamDecoder().feed(open_stream(client, task_id).content))

    assert [(event.id, event.type) for event in decoded] == [
        (str(json.loads(event.data)["seq"]), json.loads(event.data)["type"]) for event in decoded
    ]


@pytest.mark.parametrize("how", ["header", "query", "header wins"])
def test_stream_resumes_after_the_last_event_seen(client, how):
    task_id = client.create_task(HELLO)["id"]
    events = finish(client, task_id)
    request = {
        "header": {"headers": {"Last-Event-ID": "3"}},
        "query": {"params": {"after": 3}},
        "header wins": {"headers": {"Last-Event-ID": "3"}, "params": {"after": 1}},
    }[how]

    assert data_lines(open_stream(client, task_id, **request)) == events[3:]


@pytest.mark.parametrize("last_id", ["", "abc", "-1", "1e3", "9" * 40])
def test_strange_last_event_ids_start_at_the_beginning(client, last_id):
    task_id = client.create_task(HELLO)["id"]
    events = finish(client, task_id)

    assert data_lines(open_stream(client, task_id, headers={"Last-Event-ID": last_id})) == events


def test_stream_after_the_last_event_of_an_ended_task_ends(client):
    task_id = client.create_task(HELLO)["id"]
    events = finish(client, task_id)

    for after in (events[-1]["seq"], events[-1]["seq"] + 1000):
        assert data_lines(open_stream(client, task_id, params={"after": after})) == []


def test_watchers_of_a_running_task_see_the_same_events(client):
    task_id = begun(client)
    seen: list[list[dict]] = [[], [], []]

    def watch(mine: list[dict]) -> None:
        mine.extend(client.stream_task_updates(task_id))

    watchers = [threading.Thread(target=watch, args=(mine,)) for mine in seen]
    for watcher in watchers:
        watcher.start()
    client.stop_task(task_id)
    for watcher in watchers:
        watcher.join(timeout=20)

    assert seen[0] == seen[1] == seen[2] == client.get_task(task_id)["events"]


def test_many_events_are_replayed_in_order(client):
    """More than one page of the store."""
    task_id = client.create_task("```bash\nfor i in $(seq 400); do echo $i; sleep 0.002; done\n```")["id"]

    events = finish(client, task_id)

    output = "".join(event["delta"] for event in events if event["type"] == "tool.output")
    assert output.split() == [str(number) for number in range(1, 401)]
    assert data_lines(open_stream(client, task_id)) == events


def test_deletion_ends_a_stream_without_waiting_for_a_heartbeat(client):
    task_id = begun(client)
    stream = open_stream(client, task_id)
    content = stream.iter_content(None)
    received = [next(content)]

    client.delete_task(task_id)

    received.extend(content)
    assert HEARTBEAT not in b"".join(received)


def test_logout_ends_an_open_stream_and_so_does_the_end_of_an_api_token(make_server):
    server: ServerProcess = make_server().start()
    from beray.client import BeRayClient

    token = server.register("a@example.com")
    with BeRayClient(server.base_url, token=token) as leaving, BeRayClient(server.base_url) as staying:
        staying.login("a@example.com", PASSWORD)
        task_id = begun(leaving, "```bash\necho begun\nwhile :; do echo more; sleep 0.2; done\n```")
        made = staying.create_token("watcher")
        with BeRayClient(server.base_url, token=made["token"]) as program:
            streams = [open_stream(client, task_id) for client in (leaving, program)]

        leaving.logout()
        staying.delete_token(made["id"])

        for stream in streams:
            assert "task.finished" not in stream.content.decode()  # read to its end: the server has closed it
        assert staying.get_task(task_id)["status"] == "running"
        staying.stop_task(task_id)


def test_stop_of_the_server_ends_streams_cleanly_and_they_resume(make_server):
    """A shutdown is not the end of the task: the stream resumes after the restart, and the task goes on."""
    server: ServerProcess = make_server().start()
    from beray.client import BeRayClient

    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        task_id = begun(client, "```bash\necho begun\nwhile [ ! -e go ]; do sleep 0.05; done\n```")
        stream = client.stream_task_updates(task_id)
        first = [next(stream), next(stream)]
        port = int(server.base_url.rsplit(":", 1)[1])
        assert server.stop() == 0
        server.port = port
        server.start()
        client.upload_file(task_id, "go", "")

        rest = list(stream)

        events = first + rest
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["type"] == "task.finished"


def test_streams_of_a_server_as_it_is_started_are_written_to_directly(make_server):
    """The cheapest way needs the server's own `send`, which any layer in between could hide."""
    server: ServerProcess = make_server()
    server.program = (sys.executable, "-m", "tests.support.telling_server")
    from beray.client import BeRayClient

    server.start()
    with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
        task_id = begun(client, "```bash\necho begun\nwhile [ ! -e go ]; do echo more; sleep 0.05; done\n```")
        stream = open_stream(client, task_id)
        wait_until(lambda: "wrote " in server.log_text(), what="an event written as it came")
        client.upload_file(task_id, "go", "")

        assert data_lines(stream) == client.get_task(task_id)["events"]
    assert set(re.findall("wrote .*", server.log_text())) == {"wrote directly"}


def test_streams_have_no_limit_where_it_is_zero():
    streams = Streams(0)
    for _ in range(500):
        streams.open(1)
    assert streams.count == 500

    for _ in range(500):
        streams.close(1)
    assert streams.count == 0
