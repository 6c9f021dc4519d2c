"""Mistakes: each line that says so must be refused by both checkers, for these reasons, and no other line."""

from beray import AsyncBeRayClient, BeRayClient
from beray.types import Event, Status, Task


def wrong_arguments(client: BeRayClient) -> None:
    client.get_task("1")  # refused: arg-type, reportArgumentType
    client.create_task()  # refused: call-arg, reportCallIssue
    client.create_task("goal", hold="yes")  # refused: arg-type, reportArgumentType
    client.create_task("goal", None, {"requests": 1})  # refused: call-arg, reportCallIssue
    client.create_task("goal", limits={"requests": "5"})  # refused: dict-item, reportArgumentType
    client.upload_file(1, "path", 5)  # refused: arg-type, reportArgumentType
    client.list_task()  # refused: attr-defined, reportAttributeAccessIssue


def wrong_fields(client: BeRayClient, task: Task) -> None:
    print(task["gaol"])  # refused: typeddict-item, reportGeneralTypeIssues
    print(client.login("user@example.com", "password")["token"])  # refused: typeddict-item, reportGeneralTypeIssues
    print(task["status"] == "done")  # refused: comparison-overlap, reportUnnecessaryComparison (strict)
    status: Status = "finished"  # refused: assignment, reportAssignmentType
    print(status, task["result"].upper())  # refused: union-attr, reportOptionalMemberAccess
    print(task["question"]["choices"])  # refused: index, reportOptionalSubscript
    print(client.get_info()["limit"])  # refused: typeddict-item, reportGeneralTypeIssues
    for node in client.list_files_tree(1):
        print(node["content"])  # refused: typeddict-item, reportGeneralTypeIssues


def wrong_events(client: BeRayClient, event: Event) -> None:
    print(event["delta"])  # refused: typeddict-item, reportGeneralTypeIssues
    if event["type"] == "tool.output":
        print(event["text"])  # refused: typeddict-item, reportGeneralTypeIssues
    if event["type"] == "tool.outptu":  # refused: comparison-overlap, reportUnnecessaryComparison (strict)
        print(event["seq"])
    match event["type"]:
        case "task.finished":
            print(event["delta"])  # refused: typeddict-item, reportGeneralTypeIssues
        case _:
            print(event["seq"])
    for update in client.stream_task_updates(1):
        print(update.type)  # refused: union-attr, reportAttributeAccessIssue


async def wrong_awaits(client: AsyncBeRayClient) -> None:
    print(client.get_task(1)["goal"])  # refused: index, reportIndexIssue
    for _ in client.stream_task_updates(1):  # refused: attr-defined, reportGeneralTypeIssues
        print("never")
    task: Task = client.create_task("goal")  # refused: assignment, reportAssignmentType
    print(task)
