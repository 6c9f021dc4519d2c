"""One Idempotency-Key, sent by many at once: one task, one answer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from beray.client import BeRayClient

SENDERS = 20
GOAL = "```bash\necho ran >> log\n```"
SECONDS = 30


def send_at_once(url: str, token: str, key: str, goals: list[str]) -> list[requests.Response]:
    """Create a task for each goal, all under one key, each over a connection of its own that is open already."""
    together = threading.Barrier(len(goals))

    def send(goal: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key, "Accept-Language": "en"}
        with requests.Session() as session:
            session.get(f"{url}/health", timeout=SECONDS).raise_for_status()
            together.wait(SECONDS)
            return session.post(f"{url}/api/v1/tasks/", json={"goal": goal}, headers=headers, timeout=SECONDS)

    with ThreadPoolExecutor(len(goals)) as threads:
        return list(threads.map(send, goals))


def test_same_key_from_many_at_once_makes_one_task_that_runs_once(server, client):
    answers = send_at_once(server.base_url, client.token, "one", [GOAL] * SENDERS)

    assert [answer.status_code for answer in answers] == [201] * SENDERS, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    task_id = answers[0].json()["id"]
    assert ids_of(client) == [task_id]
    events = list(client.stream_task_updates(task_id))
    assert client.get_task(task_id)["status"] == "completed"
    assert client.get_file_content(task_id, "log").text == "ran\n"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events if event["type"] in ONCE] == list(ONCE)
    assert send_at_once(server.base_url, client.token, "one", [GOAL])[0].content == answers[0].content
    assert ids_of(client) == [task_id]


ONCE = ("task.created", "task.started", "task.finished")


def test_two_bodies_under_one_key_at_once_make_one_task(server, client):
    """Whichever comes first wins; those who asked for the other are told that the key is taken."""
    goals = [f"{GOAL}\n{'' if number % 2 else GOAL}".rstrip() for number in range(SENDERS)]
    answers = send_at_once(server.base_url, client.token, "two", goals)

    [winner] = {answer.json()["goal"] for answer in answers if answer.status_code == 201}
    assert winner in goals
    for goal, answer in zip(goals, answers, strict=True):
        assert told(answer) == ((201, None) if goal == winner else (409, "idempotency_mismatch")), answer.text
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(ids_of(client)) == 1


def test_same_key_of_two_users_makes_a_task_for_each(server, make_client):
    """A key is a user's own."""
    clients = [make_client(), make_client()]
    made = [send_at_once(server.base_url, client.token, "mine", [GOAL])[0].json()["id"] for client in clients]

    assert len(set(made)) == 2
    assert [ids_of(client) for client in clients] == [[made[0]], [made[1]]]


def told(answer: requests.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json().get("code")


def ids_of(client: BeRayClient) -> list[int]:
    return [task["id"] for task in client.list_tasks()]
