"""Tasks over HTTP, as a client sees them: made, shown, listed, held, stopped, deleted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import AuthenticationError, ConflictError, NotFoundError, UnprocessableEntityError
from beray.protocol.status import ENDED
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

HELLO = "Write a Python script that prints hello world"
LONG = "```bash\necho begun\nsleep 300\n```"
FIELDS = {
    "id",
    "goal",
    "status",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "result",
    "error",
    "model",
    "model_kind",
    "tools",
    "usage",
    "last_seq",
    "run",
    "attempt",
    "stop_requested",
    "question",
}


def api(client: BeRayClient, method: str, path: str, **request: object) -> requests.Response:
    """A call without the SDK, as the client's user."""
    headers = {"Authorization": f"Bearer {client.token}", **request.pop("headers", {})}
    return requests.request(method, f"{client.base_url}/api/v1{path}", headers=headers, timeout=30, **request)


def finish(client: BeRayClient, task_id: int) -> list[dict]:
    return list(client.stream_task_updates(task_id))


def begun(client: BeRayClient, goal: str = LONG) -> int:
    """A task whose command runs."""
    task_id = client.create_task(goal)["id"]
    for event in client.stream_task_updates(task_id):
        if event["type"] == "tool.output":
            return task_id
    raise AssertionError("the command never began")


def test_new_task_has_every_field_and_is_queued(client):
    task = client.create_task(HELLO, tools=["shell", "write_file"])

    assert set(task) == FIELDS
    assert (task["status"], task["goal"], task["run"], task["attempt"]) == ("queued", HELLO, 1, 0)
    assert task["tools"] == ["shell", "write_file"]
    assert (task["model"], task["model_kind"]) == ("beray:rules", "rules")
    assert task["usage"]["input_tokens"] is None
    assert task["last_seq"] == 1


def test_hello_world_is_written_and_run(client):
    """The main job: the script is in the work_dir and its real output in the events."""
    task_id = client.create_task(HELLO)["id"]

    events = finish(client, task_id)

    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "task.created"
    assert events[-1]["type"] == "task.finished"
    assert "hello world\n" in "".join(event["delta"] for event in events if event["type"] == "tool.output")
    names = [node["name"] for node in client.list_files_tree(task_id)]
    assert any(event["type"] == "file.changed" and event["path"] in names for event in events)
    assert events[-1]["files"][0]["path"] in names
    task = client.get_task(task_id)
    assert (task["status"], task["events"]) == ("completed", events)
    assert task["usage"]["requests"] > 0
    assert task["usage"]["tool_calls"] > 0


@pytest.mark.parametrize("path", ["/tasks", "/tasks/"])
def test_paths_answer_with_and_without_slash(client, path):
    assert api(client, "GET", path, allow_redirects=False).status_code == 200


@pytest.mark.parametrize("goal", ["", " \n\t", "x" * 100_001])
def test_goal_that_is_empty_or_too_long_is_refused(client, goal):
    with pytest.raises(UnprocessableEntityError) as error:
        client.create_task(goal)

    assert error.value.code in {"goal_empty", "goal_too_long"}
    assert error.value.errors[0]["loc"] == ["body", "goal"]
    assert client.list_tasks() == []


def test_goal_of_greatest_length_is_taken(client):
    assert client.create_task("长" * 100_000, hold=True)["status"] == "queued"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"goal"',
        b"\xff\xfe",
        b"{}",
        b'{"goal": 1}',
        b'{"goal": null}',
        b'{"goal": "\\ud800"}',
        b'{"goal": "a", "tools": "shell"}',
        b'{"goal": "a", "tools": [1]}',
        b'{"goal": "a", "hold": "perhaps"}',
        b'{"goal": "a", "limits": {"requests": 0}}',
        b'{"goal": "a", "limits": {"requests": "3"}}',
        b'{"goal": "a", "limits": {"request": 3}}',
        b'{"goal": "a", "limits": {"\\ud800": 3}}',
        b'{"goal": "a", "limits": 3}',
        b'{"goal": "a", "limits": {"cost_usd": 0.0000001}}',
        b'{"goal": "a", "limits": {"cost_usd": "1"}}',
        b'{"goal": "a", "limits": {"requests": 99999999999999999999}}',
        b'{"goal": "a", "model": "openai:other"}',
        b'{"goal": "a\\u0000b"}',
        b"[" * 50_000,
    ],
)
def test_wrong_bodies_are_refused_in_the_one_shape(client, body):
    answer = api(client, "POST", "/tasks/", data=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"detail", "code", "status", "title", "request_id", "errors"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


def test_unknown_tools_are_refused_with_the_list(client):
    with pytest.raises(UnprocessableEntityError) as error:
        client.create_task(HELLO, tools=["shell", "teleport"])

    assert error.value.code == "unknown_tools"
    assert "teleport" in error.value.error_detail
    assert "write_file" in error.value.error_detail


def test_tools_named_twice_count_once(client):
    assert client.create_task(HELLO, tools=["shell", "finish"] * 500, hold=True)["tools"] == ["shell", "finish"]


def test_model_to_be_checked_has_no_nul_character(client):
    answer = api(client, "POST", "/model/check", json={"model": "a\0b"})

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_misspelt_limits_are_refused_with_the_list(client):
    """They would limit nothing, unseen."""
    with pytest.raises(UnprocessableEntityError) as error:
        client.create_task(HELLO, limits={"requests": 3, "request": 3})

    assert "requests, tool_calls, tokens, wall_seconds, cost_usd" in error.value.error_detail


def test_what_the_body_holds_beside_what_is_known_is_ignored(client):
    """Deployed clients may send more."""
    assert api(client, "POST", "/tasks/", json={"goal": HELLO, "hold": True, "more": 1}).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tasks/", {"goal": "a", "model": "x" * 100_000}),
        ("POST", "/tasks/", {"goal": "a", "tools": ["x" * 100_000]}),
        ("POST", "/tasks/", {"goal": "a", "tools": [str(number) for number in range(100_000)]}),
        ("POST", "/tasks/", {"goal": "a", "limits": {"x" * 100_000: 1}}),
        ("POST", "/tasks/", {"goal": "a", "limits": {str(number): 1 for number in range(50_000)}}),
        ("POST", "/model/check", {"model": "x" * 100_000}),
        ("GET", "/" + "x" * 10_000, None),
        ("PATCH", "/tasks/1/files/" + "x" * 10_000, None),
    ],
)
def test_what_was_sent_is_said_back_only_in_part(client, method, path, body):
    answer = api(client, method, path, json=body)

    assert answer.status_code in {404, 405, 422}
    assert len(answer.content) < 2000


def test_body_over_the_limit_is_refused_before_it_is_read(client):
    answer = api(client, "POST", "/tasks/", data=b"x" * (3 << 20), headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_chunked_body_over_the_limit_is_refused(client):
    def chunks():
        for _ in range(48):
            yield b" " * 65536

    answer = api(client, "POST", "/tasks/", data=chunks(), headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_same_idempotency_key_gives_the_first_answer_again(client):
    first = api(client, "POST", "/tasks/", json={"goal": LONG, "hold": True}, headers={"Idempotency-Key": "k"})
    again = api(client, "POST", "/tasks/", json={"goal": LONG, "hold": True}, headers={"Idempotency-Key": "k"})
    other = api(client, "POST", "/tasks/", json={"goal": HELLO, "hold": True}, headers={"Idempotency-Key": "k"})

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert len(client.list_tasks()) == 1
    assert first.headers["idempotency-supported"] == "true"


def test_idempotency_keys_of_two_users_are_two(make_client):
    answers = [
        api(make_client(), "POST", "/tasks/", json={"goal": HELLO, "hold": True}, headers={"Idempotency-Key": "same"})
        for _ in range(2)
    ]

    assert answers[0].json()["id"] != answers[1].json()["id"]


def test_held_task_waits_for_its_start(client):
    task_id = client.create_task("```bash\ncat given.txt\n```", hold=True)["id"]
    client.upload_file(task_id, "given.txt", "from the upload")
    assert client.get_task(task_id)["status"] == "queued"

    started = client.start_task(task_id)

    assert started["status"] in {"queued", "running"}
    events = finish(client, task_id)
    assert "from the upload" in "".join(event["delta"] for event in events if event["type"] == "tool.output")
    with pytest.raises(ConflictError) as error:
        client.start_task(task_id)
    assert error.value.code == "task_already_started"


def test_list_is_newest_first_and_pages_by_id(client):
    ids = [client.create_task(f"goal {number}", hold=True)["id"] for number in range(5)]

    assert [task["id"] for task in client.list_tasks()] == ids[::-1]
    page = api(client, "GET", "/tasks/", params={"limit": 2})
    assert [task["id"] for task in page.json()] == [ids[4], ids[3]]
    assert page.headers["link"] == f'</api/v1/tasks?limit=2&before={ids[3]}>; rel="next"'
    last = api(client, "GET", "/tasks/", params={"limit": 2, "before": ids[1]})
    assert [task["id"] for task in last.json()] == [ids[0]]
    assert "link" not in last.headers


def test_list_filters_by_status_and_text(client):
    wanted = client.create_task("100%_sure", hold=True)["id"]
    client.create_task("100 other", hold=True)
    stopped = client.create_task("gone", hold=True)["id"]
    client.stop_task(stopped)

    found = api(client, "GET", "/tasks/", params={"q": "%_S"}).json()
    assert [task["id"] for task in found] == [wanted]
    assert [task["id"] for task in api(client, "GET", "/tasks?status=stopped").json()] == [stopped]
    assert api(client, "GET", "/tasks?status=odd").status_code == 422
    assert api(client, "GET", "/tasks?q=%00").status_code == 422, "PostgreSQL cannot look for it"


def test_unchanged_list_is_not_sent_again(client):
    client.create_task(HELLO, hold=True)
    first = api(client, "GET", "/tasks/")

    again = api(client, "GET", "/tasks/", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")


def test_events_of_a_task_can_be_left_out_or_cut(client):
    task_id = client.create_task(HELLO)["id"]
    events = finish(client, task_id)

    assert "events" not in api(client, "GET", f"/tasks/{task_id}?events=none").json()
    assert api(client, "GET", f"/tasks/{task_id}?events=tail:2").json()["events"] == events[-2:]
    assert api(client, "GET", f"/tasks/{task_id}?events=all").json()["events"] == events
    refused = api(client, "GET", f"/tasks/{task_id}?events=some")
    assert (refused.status_code, refused.json()["detail"]) == (422, "请求无效：events: 须为 all、none 或 tail:N。")


@pytest.mark.parametrize("number", ["0", "-1", "999999999", str(2**63 - 1), str(2**63), "9" * 60])
def test_unknown_ids_are_not_found(client, number):
    for method, path in [("GET", ""), ("GET", "/stream"), ("POST", "/stop"), ("POST", "/start"), ("DELETE", "")]:
        answer = api(client, method, f"/tasks/{number}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found"), (method, path)


def test_another_users_task_is_not_found(make_client: Callable[[], BeRayClient]):
    """Existence is private: every call on it answers as if there were none."""
    owner, stranger = make_client(), make_client()
    task_id = owner.create_task(HELLO)["id"]
    finish(owner, task_id)
    calls = [
        ("GET", ""),
        ("GET", "/stream"),
        ("POST", "/stop"),
        ("POST", "/start"),
        ("DELETE", ""),
        ("GET", "/files/tree"),
        ("GET", "/files/content?path=hello.py"),
        ("PUT", "/files/content?path=x"),
        ("DELETE", "/files/content?path=hello.py"),
        ("POST", "/files/download"),
    ]

    for method, path in calls:
        answer = api(stranger, method, f"/tasks/{task_id}{path}")
        unknown = api(stranger, method, f"/tasks/{task_id + 1_000_000}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found"), (method, path)
        assert answer.json()["detail"] == unknown.json()["detail"].replace(str(task_id + 1_000_000), str(task_id))
    assert owner.get_task(task_id)["status"] == "completed"
    assert stranger.list_tasks() == []


@pytest.mark.parametrize("token", [None, "br_wrong", "x" * 5000])
def test_without_a_valid_token_nothing_is_shown(server, token):
    client = BeRayClient(server.base_url, token=token)

    for call in (client.list_tasks, lambda: client.get_task(1), lambda: next(client.stream_task_updates(1))):
        with pytest.raises(AuthenticationError) as error:
            call()
        assert error.value.code == "not_authenticated"


def test_stopping_a_running_task_ends_its_processes(client):
    task_id = begun(client)

    answer = client.stop_task(task_id)

    assert answer["status"] == "stopped"
    events = client.get_task(task_id)["events"]
    assert [event["type"] for event in events][-1] == "task.finished"
    assert any(event["type"] == "task.status" and event["stop_requested"] for event in events)
    assert client.stop_task(task_id)["status"] == "stopped"


def test_stopping_a_queued_task_ends_it(client):
    task_id = client.create_task(HELLO, hold=True)["id"]

    assert client.stop_task(task_id)["status"] == "stopped"
    assert client.get_task(task_id)["events"][-1]["type"] == "task.finished"
    with pytest.raises(ConflictError):
        client.start_task(task_id)


def test_stopping_a_completed_task_is_a_conflict(client):
    """What is completed stays so: stop answers 409 and changes nothing."""
    task_id = client.create_task(HELLO)["id"]
    finish(client, task_id)
    before = client.get_task(task_id)

    with pytest.raises(ConflictError) as error:
        client.stop_task(task_id)

    assert error.value.code == "task_already_ended"
    assert client.get_task(task_id) == before


def test_deleting_a_running_task_takes_everything(client, server: ServerProcess):
    task_id = begun(client)
    folder = server.data_dir / "tasks" / str(task_id)
    assert folder.exists()

    assert str(task_id) in client.delete_task(task_id)["message"]

    assert not folder.exists()
    with pytest.raises(NotFoundError):
        client.get_task(task_id)
    with pytest.raises(NotFoundError):
        client.delete_task(task_id)


def test_deleting_a_watched_task_ends_the_stream(client):
    task_id = begun(client)
    stream = client.stream_task_updates(task_id)
    next(stream)

    client.delete_task(task_id)

    with pytest.raises(NotFoundError):
        for _ in stream:
            pass


def test_a_user_runs_only_so_many_tasks_at_once(client):
    """The fourth waits (BERAY_MAX_RUNNING_TASKS_PER_USER is 3) and goes on when one has ended."""
    running = [begun(client) for _ in range(3)]
    fourth = client.create_task(HELLO)["id"]
    assert client.get_task(fourth)["status"] == "queued"

    client.stop_task(running[0])

    finish(client, fourth)
    assert client.get_task(fourth)["status"] == "completed"
    for task_id in running[1:]:
        client.stop_task(task_id)


def test_goal_is_stored_as_it_is(client):
    goal = "'; DROP TABLE task; -- {0} %s ${x} <script>alert(1)</script> \u2028 😀"
    task_id = client.create_task(goal)["id"]

    finish(client, task_id)

    assert client.get_task(task_id)["goal"] == goal


def test_refused_goal_names_what_rules_mode_can_do(client):
    task_id = client.create_task("写一首关于宇宙的诗。")["id"]

    last = finish(client, task_id)[-1]

    assert (last["status"], last["error"]["code"]) == ("failed", "rules_unsupported")
    assert last["error"]["hint"]
    assert client.get_task(task_id)["status"] in ENDED


def test_limits_of_a_task_count_below_the_operators(client):
    goal = "```bash\necho 1\n```\n```bash\necho 2\n```\n```bash\necho 3\n```"
    answer = api(client, "POST", "/tasks/", json={"goal": goal, "limits": {"tool_calls": 2}})

    last = finish(client, answer.json()["id"])[-1]

    assert (last["status"], last["error"]["code"]) == ("failed", "budget_exceeded")


def test_stop_of_many_stubborn_processes_leaves_none(client, server: ServerProcess):
    """150 processes that ignore SIGTERM, some in sessions of their own, are gone when stop has answered."""
    mark = "299.0123"
    stubborn = f"setsid bash -c 'trap \"\" TERM; exec sleep {mark}' &"
    goal = f"```bash\nfor i in $(seq 150); do {stubborn} done\necho begun\nwait\n```"
    task_id = begun(client, goal)
    wait_until(lambda: len(processes_with(mark)) >= 150, what="150 processes")

    assert client.stop_task(task_id)["status"] == "stopped"

    assert processes_with(mark) == []


def processes_with(text: str) -> list[str]:
    """Pids whose command line holds the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
