"""What a program does with a stream: each event has the fields of its type."""

from collections.abc import Iterator
from contextlib import closing

from beray import BeRayClient
from beray.types import Event, FileSize, PlanItem, ToolOutput


def watch(client: BeRayClient, task_id: int) -> list[FileSize]:
    for event in client.stream_task_updates(task_id):
        match event["type"]:
            case "text.delta":
                print(event["delta"], end="")
            case "tool.started":
                print(event["title"], sorted(event["args"]))
            case "tool.output":
                print(event["stream"], event["delta"])
            case "tool.finished":
                print(event["ok"], event["exit_code"], event["duration_ms"] / 1000)
            case "model.fallback":
                print(event["from"], event["to"])
            case "error":
                print(event["message"], event["hint"] or "", event["budget"]["used"] if "budget" in event else 0)
            case "task.created" | "task.started" | "task.status":
                print(event["status"], event["attempt"])
            case "task.finished":
                return event["files"]
            case _:
                pass  # also those that a newer server has
    return []


def plan_of(events: list[Event]) -> list[PlanItem]:
    plan: list[PlanItem] = []
    for event in events:
        if event["type"] == "plan.updated":
            plan = event["items"]
    return plan


def outputs(events: Iterator[Event]) -> Iterator[ToolOutput]:
    for event in events:
        if event["type"] == "tool.output":
            yield event


def first_output(client: BeRayClient, task_id: int) -> str:
    with closing(client.stream_task_updates(task_id)) as events:
        return next((event["delta"] for event in outputs(events)), "")


def numbered(event: Event) -> str:
    seq: int = event["seq"]
    return f"{seq} {event['at']} {event['task_id']} {event['type']}"


def answer_by(event: Event) -> str | None:
    if event["type"] != "input.requested":
        return None
    return event["choices"][0] if event["choices"] else event["question"]
