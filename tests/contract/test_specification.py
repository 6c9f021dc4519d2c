"""The SDK's specification, executed: each snippet runs unchanged, in a process of its own, against a fresh server.

The document is a copy whose hash proves that its text is unchanged. A snippet's server holds exactly the state the
snippet presupposes, and its process the names it takes for granted. The snippets say `http://localhost:8000`; so that
they run beside anything else, their process reaches the server through the environment's proxy setting, which only a
client that honours it unchanged can do.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from beray.client import BeRayClient
from beray.server.auth.codes import Codes
from beray.server.clock import system_clock
from beray.server.db.sqlite import sqlite_engine
from tests.support.server import ServerProcess
from tests.support.snippets import run_snippet
from tests.support.waiting import wait_until

DOCUMENT = Path(__file__).parent / "specification" / "beray-python-sdk.zh.md"
SHA256 = "b720c9fedfd61211db511734a37443e8b9b84d30b9fff7a8f8ef1b2551d614a0"
BASE_URL = "http://localhost:8000"  # what the document's snippets say
HELLO = "写一个打印 hello world 的 Python 脚本"
LONG_GOAL = "```bash\nsleep 300\n```"

SNIPPETS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@dataclass
class Scene:
    """What a snippet finds, and what it leaves."""

    server: ServerProcess
    folder: Path
    owner: BeRayClient
    prelude: str = ""
    output: str = ""
    facts: dict[str, object] = field(default_factory=dict)


Act = Callable[[Scene], None]


def account(email: str, password: str) -> Act:
    """An account exists, and the test acts as its owner."""

    def seed(scene: Scene) -> None:
        scene.owner.set_token(scene.server.register(email, password))

    return seed


def logged_in(scene: Scene) -> None:
    """The name `client` is a client that has logged in."""
    token = scene.server.register("owner@example.com")
    scene.owner.set_token(token)
    scene.prelude += f"from beray.client import BeRayClient\nclient = BeRayClient({BASE_URL!r}, token={token!r})\n"


def logged_out(scene: Scene) -> None:
    """The name `client` is a client that has not logged in."""
    scene.prelude += f"from beray.client import BeRayClient\nclient = BeRayClient({BASE_URL!r})\n"


def names_api_error(scene: Scene) -> None:
    scene.prelude += "from beray.exceptions import APIError\n"


def finished_task(scene: Scene) -> None:
    """A task exists and has ended."""
    task = scene.owner.create_task(HELLO)
    for _ in scene.owner.stream_task_updates(task["id"]):
        pass


def running_task(scene: Scene) -> None:
    """A task exists and runs."""
    task = scene.owner.create_task(LONG_GOAL)
    wait_until(lambda: scene.owner.get_task(task["id"])["status"] == "running", what="the task to run")


def files(*paths: str) -> Act:
    """Task 1's work_dir holds the files."""

    def seed(scene: Scene) -> None:
        for path in paths:
            scene.owner.upload_file(1, path, f"content of {path}")

    return seed


def code_123456(scene: Scene) -> None:
    """The code that was mailed to the new user was 123456."""
    engine = sqlite_engine(scene.server.data_dir / "beray.db")
    codes = Codes((scene.server.data_dir / "secret.key").read_bytes().strip(), minutes=10, clock=system_clock)
    with patch("beray.server.auth.codes.secrets.randbelow", return_value=123456), engine.begin() as connection:
        assert codes.issue(connection, "new_user@example.com", "register") == "123456"
    engine.dispose()


def image(scene: Scene) -> None:
    """The current folder holds my_image.png."""
    (scene.folder / "my_image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


def prints(*texts: str) -> Act:
    """The snippet's output holds the texts, in this order."""

    def check(scene: Scene) -> None:
        position = 0
        for text in texts:
            position = scene.output.find(text, position)
            assert position >= 0, f"{text!r} is not in order in:\n{scene.output}"

    return check


def silent(scene: Scene) -> None:
    assert scene.output == ""


def code_was_mailed(scene: Scene) -> None:
    assert re.fullmatch(r"[0-9]{6}", scene.server.code_for("new_user@example.com"))


def task_made_something(scene: Scene) -> None:
    """The script the goal asked for has been written, and has printed what it should."""
    output = "".join(event["delta"] for event in scene.owner.get_task(1)["events"] if event["type"] == "tool.output")
    assert "hello world" in output
    assert scene.owner.list_files_tree(1)


def poem_was_refused(scene: Scene) -> None:
    """Rules mode makes no poem, and says so instead of pretending."""
    for _ in scene.owner.stream_task_updates(1):
        pass
    task = scene.owner.get_task(1)
    assert (task["status"], task["error"]["code"]) == ("failed", "rules_unsupported")


def first_task_was_stopped(scene: Scene) -> None:
    assert scene.owner.get_task(1)["status"] == "stopped"


def second_task_is_gone(scene: Scene) -> None:
    assert [task["id"] for task in scene.owner.list_tasks()] == [1]


def uploads_are_there(scene: Scene) -> None:
    assert scene.owner.get_file_content(1, "source_code/main.py").text == "print('Hello, BeRay!')"
    image_bytes = (scene.folder / "my_image.png").read_bytes()
    assert scene.owner.get_file_content(1, "images/my_image.png").content == image_bytes


def summary_was_saved(scene: Scene) -> None:
    assert (scene.folder / "local_summary.txt").read_text() == "content of results/summary.txt"


def archive_was_saved(scene: Scene) -> None:
    import zipfile

    with zipfile.ZipFile(scene.folder / "task_1_archive.zip") as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert names == {"results/summary.txt", "images/a.png"}


SCENES: list[tuple[str, list[Act], list[Act]]] = [
    (
        "quick start",
        [account("user@example.com", "your_secure_password")],
        [
            prints("登录成功", "成功创建任务: ID - 1", "你一共有 1 个任务。", "收到更新", "的更新流已结束 ---"),
            task_made_something,
        ],
    ),
    ("make a client", [], [silent]),
    ("request a code", [logged_out], [silent, code_was_mailed]),
    ("register", [logged_out, code_123456], [prints("new_user@example.com")]),
    (
        "log in",
        [logged_out, account("existing_user@example.com", "my_password")],
        [prints("欢迎回来, existing_user@example.com!")],
    ),
    ("log in by form", [logged_out, account("existing_user@example.com", "my_password")], [silent]),
    ("current user", [logged_in], [prints("当前用户ID: 1, 邮箱: owner@example.com")]),
    ("log out", [logged_in], [prints("已成功登出")]),
    ("create a task", [logged_in], [prints("新任务已创建，ID: 1"), poem_was_refused]),
    ("list tasks", [logged_in, finished_task], [prints("ID: 1, 目标: ", "状态: completed")]),
    ("get a task", [logged_in, finished_task], [prints("'id': 1", "'events'", "task.finished")]),
    (
        "stream a task",
        [logged_in, names_api_error],
        [prints("任务 1 已创建", "task.created", "hello world", "task.finished", "--- 任务 1 的更新流已结束 ---")],
    ),
    ("stop a task", [logged_in, running_task], [prints("1"), first_task_was_stopped]),
    ("delete a task", [logged_in, finished_task, finished_task], [prints("2"), second_task_is_gone]),
    (
        "list files",
        [logged_in, finished_task, files("output/a.txt", "b.txt")],
        [prints("'output'", "'output/a.txt'", "'b.txt'")],
    ),
    ("upload", [logged_in, finished_task, image], [silent, uploads_are_there]),
    (
        "get a file",
        [logged_in, finished_task, files("results/summary.txt")],
        [prints("文件下载成功。"), summary_was_saved],
    ),
    (
        "download as zip",
        [logged_in, finished_task, files("results/summary.txt", "images/a.png", "other.txt")],
        [prints("ZIP 归档下载成功。"), archive_was_saved],
    ),
    (
        "handle errors",
        [logged_out, account("existing_user@example.com", "my_password")],
        [prints("操作冲突: ", "existing_user@example.com")],
    ),
]


def test_document_is_unchanged() -> None:
    assert hashlib.sha256(DOCUMENT.read_bytes()).hexdigest() == SHA256


def test_every_snippet_has_its_scene() -> None:
    assert len(SCENES) == len(SNIPPETS)


@pytest.mark.parametrize("number", range(len(SCENES)), ids=[name.replace(" ", "-") for name, _, _ in SCENES])
def test_snippet_runs_unchanged(number: int, make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    _, seeds, checks = SCENES[number]
    server = make_server().start()
    with BeRayClient(server.base_url) as owner:
        scene = Scene(server, tmp_path, owner)
        for seed in seeds:
            seed(scene)

        scene.output = run_snippet(scene.prelude + SNIPPETS[number], server, tmp_path)

        assert "流式连接出错" not in scene.output
        assert "发生错误" not in scene.output
        for check in checks:
            check(scene)
