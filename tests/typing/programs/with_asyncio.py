"""The same jobs for asyncio."""

import asyncio
from contextlib import aclosing
from pathlib import Path

from beray import AsyncBeRayClient, ConflictError, NotFoundError
from beray.types import ApiToken, Event, FileNode, Info, Question, Ready, Session, StopAnswer, Task, User


async def log_in(client: AsyncBeRayClient, email: str, code: str) -> User:
    try:
        print((await client.request_verification_code(email))["message"])
        session: Session = await client.register(email, code, "a_very_secure_password")
    except ConflictError:
        session = await client.login(email, "a_very_secure_password")
    assert session == await client.login_with_form(email, "a_very_secure_password")
    return await client.get_current_user()


async def tokens(client: AsyncBeRayClient, email: str, code: str) -> list[ApiToken]:
    print((await client.request_password_reset(email))["message"])
    print((await client.reset_password(email, code, "another_secure_password"))["message"])
    secret: str = (await client.create_token("nightly"))["token"]
    listed = await client.list_tokens()
    await client.delete_token(listed[0]["id"])
    return listed if secret else []


async def run(client: AsyncBeRayClient, goal: str) -> str | None:
    task: Task = await client.create_task(goal, tools=["shell"], limits={"requests": 5}, hold=True)
    await client.start_task(task["id"])
    async for event in client.stream_task_updates(task["id"]):
        match event["type"]:
            case "tool.output":
                print(event["stream"], event["delta"], end="")
            case "task.finished":
                return event["result"]
            case _:
                pass
    return None


async def first_output(client: AsyncBeRayClient, task_id: int) -> str:
    async with aclosing(client.stream_task_updates(task_id, after=3)) as events:
        async for event in events:
            if event["type"] == "tool.output":
                return event["delta"]
    return ""


async def wait(client: AsyncBeRayClient, task_id: int) -> Task:
    async def choose(question: Question) -> str | None:
        print(await client.get_task(task_id))
        return question["choices"][0] if question["choices"] else None

    def tell(event: Event) -> None:
        print(event["seq"], event["type"])

    return await client.wait_for_task(task_id, 600, on_event=tell, on_question=choose)


async def goals(client: AsyncBeRayClient) -> list[str]:
    listed: list[Task] = await client.list_tasks(limit=10, status=["running", "waiting"])
    return [task["goal"] for task in listed] + [task["goal"] async for task in client.iter_tasks(search="chart")]


async def talk(client: AsyncBeRayClient, task_id: int) -> tuple[Task, StopAnswer, str]:
    await client.send_message(task_id, "in red, please")
    task = await client.get_task(task_id, events="none")
    return task, await client.stop_task(task_id), (await client.delete_task(task_id))["message"]


async def files(client: AsyncBeRayClient, task_id: int) -> bytes:
    nodes: list[FileNode] = await client.list_files_tree(task_id)
    print(*(node["path"] for node in nodes), (await client.delete_file(task_id, "old"))["message"])
    response = await client.get_file_content(task_id, "results/summary.txt")
    archive = await client.download_files_as_zip(task_id, ["results/"])
    return await response.read() + await archive.read() + await client.get_tool_output(task_id, "call_1_1_0")


async def at_once(client: AsyncBeRayClient, folder: Path) -> list[Path]:
    await client.upload_dir(1, folder)
    await client.upload_file(1, "a", folder / "a", progress=print)
    await client.download_file(1, "a", folder)
    await client.download_zip(1, folder)
    result = await client.run("sort it", files=[folder], on_event=print)
    print(result.ok, result.text, len(result.files))
    return await result.raise_if_failed().download(folder) + await client.download_dir(1, ".", folder)


async def look(client: AsyncBeRayClient) -> bool:
    info, ready = await asyncio.gather(client.get_info(), client.get_ready())
    told: tuple[Info, Ready] = info, ready
    check = await client.with_options(timeout=60).check_model()
    return told[1]["status"] == "ready" and check["ok"] and (await client.get_health())["status"] == "ok"


async def main() -> None:
    async with AsyncBeRayClient("http://localhost:8000", token="token") as client:
        results = await asyncio.gather(run(client, "one"), run(client, "two"), return_exceptions=True)
        print([result for result in results if not isinstance(result, NotFoundError)])
        print((await client.logout())["message"])


asyncio.run(main())
