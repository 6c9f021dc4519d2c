"""Messages to tasks over HTTP, in each state of the task."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import ConflictError, NotFoundError, UnprocessableEntityError
from tests.support.scripted_model import Reply, ScriptedModel, call
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

LONG = "```bash\necho begun\nsleep 300\n```"


class Talker:
    """A model that works by what the user has said last: `sleep`, `ask`, or anything, which it repeats."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []

    def __call__(self, request: dict, number: int) -> Reply:
        messages = request["messages"]
        heard = [message["content"] for message in messages if message["role"] == "user"]
        self.heard.append(heard)
        if messages[-1]["role"] == "tool" and "answers" in messages[-1]["content"]:
            return Reply(messages[-1]["content"].partition("\n")[2])
        is_told = messages[-1]["role"] == "user"
        if heard[-1].startswith("sleep") and is_told:
            return Reply(calls=[call("shell", command=heard[-1])])
        if heard[-1].startswith("ask") and is_told:
            return Reply(calls=[call("ask_user", question="Which?", choices=["this", "that"])])
        return Reply(f"You said: {heard[-1]}")


@pytest.fixture(scope="module")
def talking(module_dir):
    """A server with such a model, and a client."""
    talker = Talker()
    with ScriptedModel(talker) as model:
        settings = {"model": "openai:scripted", "model_base_url": model.base_url, "model_api_key": "key"}
        server = ServerProcess(module_dir / "data", **settings).start()
        with BeRayClient(server.base_url, token=server.register("talker@example.com")) as client:
            yield client
        assert server.stop() == 0


def api(client: BeRayClient, task_id: object, body: object, **headers: str) -> requests.Response:
    return requests.post(
        f"{client.base_url}/api/v1/tasks/{task_id}/messages",
        json=body,
        headers={"Authorization": f"Bearer {client.token}", "Accept-Language": "en", **headers},
        timeout=30,
    )


def ended(client: BeRayClient, task_id: int, *, after: int = 0) -> list[dict]:
    """The events to the end."""
    return list(client.stream_task_updates(task_id, after=after))


def working(client: BeRayClient, goal: str = "sleep 0.5") -> int:
    """A task whose command runs."""
    task_id = client.create_task(goal)["id"]
    wait_for(client, task_id, "tool.started")
    return task_id


def waiting(client: BeRayClient) -> int:
    """A task that waits for an answer."""
    task_id = client.create_task("ask")["id"]
    wait_for(client, task_id, "input.requested")
    return task_id


def wait_for(client: BeRayClient, task_id: int, kind: str) -> None:
    assert any(event["type"] == kind for event in client.stream_task_updates(task_id))


def test_message_to_a_task_at_work_is_read(talking):
    task_id = working(talking)

    answer = talking.send_message(task_id, "hello")

    assert (answer["id"], answer["status"], answer["run"]) == (task_id, "running", 1)
    events = ended(talking, task_id)
    assert events[-1]["result"] == "You said: hello"
    [received] = [event for event in events if event["type"] == "input.received"]
    assert (received["question_id"], received["content"]) == (None, "hello")


def test_message_to_a_held_task_comes_with_its_goal(talking):
    task_id = talking.create_task("first", hold=True)["id"]

    answer = talking.send_message(task_id, "second")
    talking.start_task(task_id)

    assert answer["status"] == "queued"
    assert ended(talking, task_id)[-1]["result"] == "You said: second"


def test_message_to_a_waiting_task_is_the_answer(talking):
    task_id = waiting(talking)
    asked = talking.get_task(task_id, events="none")

    answer = talking.send_message(task_id, "that")

    assert asked["status"] == "waiting"
    assert asked["question"]["choices"] == ["this", "that"]
    assert (answer["status"], answer["question"]) == ("running", None)
    events = ended(talking, task_id)
    assert events[-1]["result"] == "that"
    [received] = [event for event in events if event["type"] == "input.received"]
    assert received["question_id"] == asked["question"]["question_id"]


def test_answer_that_names_its_question_is_taken_once_however_often_it_is_sent(talking):
    task_id = waiting(talking)
    question_id = talking.get_task(task_id, events="none")["question"]["question_id"]

    first, again = (
        talking.send_message(task_id, "that", question_id=question_id, idempotency_key="answer") for _ in range(2)
    )

    assert first == again
    assert ended(talking, task_id)[-1]["result"] == "that"


def test_answer_to_a_question_that_is_over_begins_no_run(talking):
    task_id = waiting(talking)
    question_id = talking.get_task(task_id, events="none")["question"]["question_id"]
    with pytest.raises(ConflictError) as other:
        talking.send_message(task_id, "this", question_id="another")
    talking.send_message(task_id, "that")
    ended(talking, task_id)

    with pytest.raises(ConflictError) as late:
        talking.send_message(task_id, "this", question_id=question_id)

    assert other.value.code == late.value.code == "question_closed"
    task = talking.get_task(task_id, events="none")
    assert (task["status"], task["run"], task["result"]) == ("completed", 1, "that")


@pytest.mark.parametrize("status", ["completed", "stopped", "failed"])
def test_message_to_an_ended_task_begins_a_further_run(talking, status):
    if status == "completed":
        task_id = talking.create_task("first")["id"]
    elif status == "failed":
        task_id = limited(talking)
    else:
        task_id = working(talking, "sleep 300")
        talking.stop_task(task_id)
    before = ended(talking, task_id)
    assert before[-1]["status"] == status

    answer = talking.send_message(task_id, "again")

    assert (answer["status"], answer["run"], answer["attempt"]) == ("queued", 2, 0)
    assert (answer["result"], answer["error"], answer["finished_at"], answer["started_at"]) == (None, None, None, None)
    assert answer["stop_requested"] is False
    after = ended(talking, task_id, after=before[-1]["seq"])
    assert [event["type"] for event in after[:3]] == ["input.received", "task.status", "task.started"]
    assert (after[1]["status"], after[1]["run"], after[2]["run"], after[2]["attempt"]) == ("queued", 2, 2, 1)
    assert after[-1]["result"] == "You said: again"
    assert [event["seq"] for event in [*before, *after]] == list(range(1, len(before) + len(after) + 1))
    assert talking.get_task(task_id)["goal"] == before_goal(status)


def before_goal(status: str) -> str:
    return {"completed": "first", "failed": "sleep 0", "stopped": "sleep 300"}[status]


def limited(client: BeRayClient) -> int:
    """A task that may make one request, and needs two; so may each of its runs."""
    body = {"goal": "sleep 0", "limits": {"requests": 1}}
    headers = {"Authorization": f"Bearer {client.token}"}
    answer = requests.post(f"{client.base_url}/api/v1/tasks", json=body, headers=headers, timeout=30)
    return answer.json()["id"]


def test_watcher_of_all_gets_the_further_run_too(talking):
    """The `task.finished` of the first run, met in a replay, ends nothing."""
    task_id = talking.create_task("first")["id"]
    ended(talking, task_id)
    talking.send_message(task_id, "again")

    events = ended(talking, task_id)

    assert [event["result"] for event in events if event["type"] == "task.finished"] == [
        "You said: first",
        "You said: again",
    ]


def test_usage_of_the_task_is_that_of_all_its_runs(talking):
    task_id = talking.create_task("first")["id"]
    ended(talking, task_id)
    talking.send_message(task_id, "again")

    finished = ended(talking, task_id)[-1]

    assert finished["usage"]["requests"] == 2
    assert talking.get_task(task_id)["usage"] == finished["usage"]


@pytest.mark.parametrize("how", ["stop", "delete"])
def test_waiting_task_is_stopped_and_deleted_at_once(talking, how):
    task_id = waiting(talking)

    if how == "stop":
        assert talking.stop_task(task_id)["status"] == "stopped"
        assert talking.get_task(task_id)["question"] is None
    else:
        talking.delete_task(task_id)
        with pytest.raises(NotFoundError):
            talking.send_message(task_id, "late")


def test_further_runs_are_deleted_with_their_task(talking):
    task_id = talking.create_task("first")["id"]
    ended(talking, task_id)
    talking.send_message(task_id, "sleep 300")
    wait_until(lambda: talking.get_task(task_id, events="none")["status"] == "running", what="the further run")

    talking.delete_task(task_id)

    with pytest.raises(NotFoundError):
        talking.get_task(task_id)


def test_same_key_is_taken_once(talking):
    task_id = talking.create_task("first")["id"]
    ended(talking, task_id)

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: api(talking, task_id, {"content": "once"}, **{"Idempotency-Key": "k"}), range(8))
        )

    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
    assert answers[0].json()["run"] == 2
    other = api(talking, task_id, {"content": "other"}, **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    received = [event for event in ended(talking, task_id) if event["type"] == "input.received"]
    assert [event["content"] for event in received] == ["once"]


def test_messages_that_nobody_reads_are_bounded(talking):
    task_id = talking.create_task("first", hold=True)["id"]
    for number in range(20):
        talking.send_message(task_id, str(number))

    answer = api(talking, task_id, {"content": "one too many"})

    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_messages")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("content", "code"), [("", "message_empty"), (" \n", "message_empty"), ("x" * 100_001, "message_too_long")]
)
def test_message_that_is_empty_or_too_long_is_refused(talking, content, code):
    task_id = talking.create_task("first", hold=True)["id"]

    with pytest.raises(UnprocessableEntityError) as error:
        talking.send_message(task_id, content)

    assert error.value.code == code
    assert error.value.errors[0]["loc"] == ["body", "content"]


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"content": 1}, {"content": None}, {"content": "a\u0000b"}, {"content": "a", "question_id": 1}],
)
def test_wrong_bodies_are_refused(talking, body):
    task_id = talking.create_task("first", hold=True)["id"]

    answer = api(talking, task_id, body)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


@pytest.mark.parametrize("task_id", [999_999, 2**63, -1])
def test_message_to_no_task_is_not_found(talking, task_id):
    answer = api(talking, task_id, {"content": "hello"})

    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


def test_fixed_rules_read_no_messages_before_their_end(client):
    held = client.create_task("`true`", hold=True)["id"]
    running = client.create_task(LONG)["id"]
    wait_for(client, running, "tool.output")
    for task_id in (held, running):
        with pytest.raises(ConflictError) as error:
            client.send_message(task_id, "hello")
        assert error.value.code == "rules_read_no_messages"
    client.stop_task(running)

    assert client.send_message(running, "`echo again`")["run"] == 2
    finished = ended(client, running)[-1]
    assert finished["status"] == "completed"
    assert "again" in finished["result"]


def test_message_is_written_into_the_audit_log_without_its_text(talking, module_dir):
    task_id = talking.create_task("first", hold=True)["id"]
    talking.send_message(task_id, "a secret")

    with sqlite3.connect(module_dir / "data" / "beray.db") as connection:
        rows = connection.execute("SELECT * FROM audit WHERE action = 'task.message' AND task_id = ?", [task_id])
        [row] = rows.fetchall()
    assert "secret" not in json.dumps(row)


def test_server_that_asks_nothing_offers_no_tool_to_ask(make_server):
    server = make_server(answer_seconds=0).start()
    with BeRayClient(server.base_url, token=server.register("quiet@example.com")) as client:
        offered = [tool["name"] for tool in client.get_info()["tools"]]
        with pytest.raises(UnprocessableEntityError) as error:
            client.create_task("`true`", tools=["shell", "ask_user"])

    assert "shell" in offered
    assert "ask_user" not in offered
    assert error.value.code == "unknown_tools"
