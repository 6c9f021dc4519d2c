"""A task from its goal to its result."""

import json

from beray import BeRayClient
from beray.types import Event, Question, Status, Task, TaskError, Usage


def describe(task: Task) -> str:
    status: Status = task["status"]
    usage: Usage = task["usage"]
    cost: float | None = usage["cost_usd"]
    cached: int | None = usage.get("cached_input_tokens")
    error: TaskError | None = task["error"]
    reached = error["budget"]["limit"] if error is not None and "budget" in error else None
    words = [status, task["goal"][:20], task["model_kind"] or "", reached or "", json.dumps(task)]
    return f"{' '.join(words)} {cost} {cached}"


def run(client: BeRayClient, goal: str) -> str | None:
    task = client.create_task(goal, tools=["shell"], limits={"requests": 5, "cost_usd": 0.5}, hold=True)
    client.start_task(task["id"])
    for event in client.stream_task_updates(task["id"], after=task["last_seq"]):
        if event["type"] == "task.finished":
            return event["result"]
    return None


def answer(client: BeRayClient, task: Task) -> Task:
    question: Question | None = task["question"]
    if question is None:
        return client.send_message(task["id"], "go on")
    choices: list[str] = question["choices"] or ["yes"]
    return client.send_message(task["id"], choices[0], question_id=question["question_id"])


def newest(client: BeRayClient) -> list[str]:
    tasks: list[Task] = client.list_tasks(limit=10, status="running")
    return [f"{task['id']} {task['status']}" for task in tasks if not task["stop_requested"]]


def failures(client: BeRayClient) -> dict[int, str]:
    failed = client.iter_tasks(status=["failed"], search="chart")
    return {task["id"]: task["error"]["message"] for task in failed if task["error"] is not None}


def wait(client: BeRayClient, task_id: int) -> str | None:
    def tell(event: Event) -> None:
        print(event["seq"], event["type"])

    def choose(question: Question) -> str | None:
        return question["choices"][0] if question["choices"] else None

    patient = client.with_options(deadline=None, max_retries=5)
    return patient.wait_for_task(task_id, 600, on_event=tell, on_question=choose)["result"]


def last_type(client: BeRayClient, task_id: int) -> str:
    task = client.get_task(task_id, events="tail:1")
    return task["events"][-1]["type"] if "events" in task else "unknown"


def end(client: BeRayClient, task_id: int) -> str:
    stopped: Status = client.stop_task(task_id)["status"]
    return stopped + client.delete_task(task_id)["message"]
