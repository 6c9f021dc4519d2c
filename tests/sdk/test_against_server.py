"""The client against the real server, so that the two can't drift apart."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    UnprocessableEntityError,
)
from tests.support.blocking import BlockingClient
from tests.support.server import PASSWORD, ServerProcess
from tests.support.waiting import wait_until

HELLO = "写一个打印 hello world 的 Python 脚本"


@pytest.fixture
def done_task(client: BeRayClient) -> int:
    """A task that has completed."""
    task = client.create_task(HELLO)
    last = list(client.stream_task_updates(task["id"]))[-1]
    assert last["status"] == "completed", last
    return task["id"]


def test_an_account_from_its_code_to_its_logout(server: ServerProcess) -> None:
    with BeRayClient(server.base_url) as client:
        assert client.request_verification_code("whole@example.com") == {"message": "验证码已发送到您的邮箱。请查收。"}
        code = server.code_for("whole@example.com")
        registered = client.register("whole@example.com", code, PASSWORD)
        assert client.get_current_user() == registered["user"]

        assert client.logout() == {"message": "已成功登出"}
        client.set_token(registered["access_token"])
        with pytest.raises(AuthenticationError) as dead:
            client.get_current_user()
        assert dead.value.code == "not_authenticated"

        for log_in in (client.login, client.login_with_form):
            assert log_in("whole@example.com", PASSWORD)["user"] == registered["user"]
            assert client.get_current_user()["email"] == "whole@example.com"


def test_a_forgotten_password_is_reset(server: ServerProcess, client: BeRayClient) -> None:
    email = client.get_current_user()["email"]
    asked_before = len(server.mails())
    message = client.request_password_reset(email)["message"]
    wait_until(lambda: len(server.mails()) > asked_before, what="the mail")
    code = server.code_for(email)

    assert client.request_password_reset("nobody-at-all@example.com")["message"] == message
    assert client.reset_password(email, code, "a new secure password")["message"]

    with pytest.raises(AuthenticationError):
        client.get_current_user()
    with pytest.raises(APIError) as used:
        client.reset_password(email, code, "yet another password")
    assert (used.value.status_code, used.value.code) == (400, "invalid_verification_code")
    assert client.login(email, "a new secure password")["user"]["email"] == email


def test_an_api_token_from_its_making_to_its_end(server: ServerProcess, client: BeRayClient) -> None:
    made = client.create_token("nightly", expires_in=3600)

    (listed,) = client.list_tokens()
    assert {**listed, "token": made["token"]} == made
    with BeRayClient(server.base_url, token=made["token"]) as program:
        assert program.get_current_user() == client.get_current_user()
        for call in (program.list_tokens, lambda: program.create_token("more"), lambda: program.delete_token(1)):
            with pytest.raises(AuthenticationError) as refused:
                call()
            assert (refused.value.status_code, refused.value.code) == (403, "login_needed")
        assert client.delete_token(made["id"])["message"]
        with pytest.raises(AuthenticationError):
            program.get_current_user()
    with pytest.raises(NotFoundError):
        client.delete_token(made["id"])
    with pytest.raises(UnprocessableEntityError):
        client.create_token("  ")


def test_refusals_of_accounts_are_typed(server: ServerProcess, client: BeRayClient) -> None:
    email = client.get_current_user()["email"]

    with pytest.raises(ConflictError) as taken:
        client.request_verification_code(email)
    with pytest.raises(UnprocessableEntityError) as wrong:
        client.request_verification_code("not an address")
    with pytest.raises(AuthenticationError):
        client.login(email, "another password")

    assert taken.value.code == "email_already_registered"
    assert wrong.value.errors[0]["loc"][-1] == "email"
    assert taken.value.request_id
    assert taken.value.error_detail in str(taken.value)


def test_a_task_is_followed_to_its_end(client: BeRayClient) -> None:
    task = client.create_task(goal=HELLO)

    updates = list(client.stream_task_updates(task_id=task["id"]))

    assert [update["seq"] for update in updates] == list(range(1, len(updates) + 1))
    assert (updates[0]["type"], updates[-1]["type"]) == ("task.created", "task.finished")
    ended = client.get_task(task_id=task["id"])
    assert ended["status"] == updates[-1]["status"] == "completed"
    assert ended["events"] == updates
    assert [one["id"] for one in client.list_tasks()] == [task["id"]]


def test_an_ended_task_replays_from_anywhere(client: BeRayClient, done_task: int) -> None:
    updates = list(client.stream_task_updates(done_task))

    for after in (1, len(updates) - 1, len(updates)):
        assert list(client.stream_task_updates(done_task, after=after)) == updates[after:]


def test_the_same_key_gives_the_same_task(client: BeRayClient) -> None:
    first = client.create_task(HELLO, hold=True, idempotency_key="k1")
    again = client.create_task(HELLO, hold=True, idempotency_key="k1")

    assert again["id"] == first["id"]
    with pytest.raises(ConflictError) as other_goal:
        client.create_task("another goal", idempotency_key="k1")
    assert other_goal.value.code == "idempotency_mismatch"
    assert len(client.list_tasks()) == 1


def test_a_held_task_starts_with_its_files(client: BeRayClient) -> None:
    task_id = client.create_task(HELLO, hold=True)["id"]
    client.upload_file(task_id, "输入/数据.txt", "你好")

    assert client.start_task(task_id)["id"] == task_id
    list(client.stream_task_updates(task_id))

    assert client.get_file_content(task_id, "输入/数据.txt").text == "你好"
    with pytest.raises(ConflictError):
        client.start_task(task_id)


def test_whole_output_of_a_call_is_given(client: BeRayClient) -> None:
    task_id = client.create_task("`seq 300000`")["id"]
    events = list(client.stream_task_updates(task_id))

    call_id = next(event["call_id"] for event in events if event["type"] == "tool.finished" and event["truncated"])

    assert client.get_tool_output(task_id, call_id) == "".join(f"{number}\n" for number in range(1, 300_001)).encode()
    with pytest.raises(NotFoundError) as unknown:
        client.get_tool_output(task_id, "call_9_9_9")
    assert unknown.value.code == "output_not_found"


def test_files_go_up_and_come_back(client: BeRayClient) -> None:
    task_id = client.create_task(HELLO, hold=True)["id"]
    large = bytes(range(256)) * 8000

    answer = client.upload_file(task_id, "a b/图 &=#?.bin", large)
    client.upload_file(task_id, "a b/empty", b"")

    assert (answer["path"], answer["size"]) == ("a b/图 &=#?.bin", len(large))
    (folder,) = client.list_files_tree(task_id)
    assert sorted(node["name"] for node in folder["children"]) == ["empty", "图 &=#?.bin"]
    assert client.list_files_tree(task_id, path="a b") == folder["children"]
    assert client.get_file_content(task_id, "a b/图 &=#?.bin").content == large
    archive = zipfile.ZipFile(io.BytesIO(client.download_files_as_zip(task_id, ["a b/"]).content))
    assert archive.read("a b/图 &=#?.bin") == large
    assert client.download_files_as_zip(task_id).ok

    client.delete_file(task_id, "a b/empty")
    with pytest.raises(NotFoundError) as gone:
        client.get_file_content(task_id, "a b/empty")
    assert gone.value.code == "file_not_found"
    with pytest.raises(NotFoundError):
        client.delete_file(task_id, "a b/empty")
    with pytest.raises(APIError) as outside:
        client.upload_file(task_id, "../outside", b"x")
    assert outside.value.status_code in (404, 422)


def test_stopping_and_deleting(client: BeRayClient) -> None:
    task_id = client.create_task(HELLO, hold=True)["id"]

    assert client.stop_task(task_id)["status"] == "stopped"
    assert client.stop_task(task_id)["status"] == "stopped"
    assert client.delete_task(task_id)["message"]

    for call in (client.get_task, client.stop_task, client.delete_task, client.list_files_tree):
        with pytest.raises(NotFoundError):
            call(task_id)
    with pytest.raises(NotFoundError):
        next(iter(client.stream_task_updates(task_id)))


def test_stopping_a_completed_task_is_a_conflict(client: BeRayClient, done_task: int) -> None:
    before = client.get_task(done_task)

    with pytest.raises(ConflictError) as error:
        client.stop_task(done_task)

    assert error.value.code == "task_already_ended"
    assert client.get_task(done_task) == before


def test_somebody_elses_task_is_not_found(client: BeRayClient, make_client: Callable[[], BeRayClient]) -> None:
    task_id = client.create_task(HELLO, hold=True)["id"]
    stranger = make_client()

    with pytest.raises(NotFoundError):
        stranger.get_task(task_id)
    with pytest.raises(NotFoundError):
        next(iter(stranger.stream_task_updates(task_id)))


def test_a_wrong_goal_or_tool_is_named(client: BeRayClient) -> None:
    with pytest.raises(UnprocessableEntityError):
        client.create_task("")
    with pytest.raises(UnprocessableEntityError) as error:
        client.create_task(HELLO, tools=["telepathy"])

    assert "telepathy" in error.value.error_detail


def test_messages_come_in_the_language_asked_for(server: ServerProcess) -> None:
    with pytest.raises(AuthenticationError) as english:
        BeRayClient(server.base_url, language="en").list_tasks()
    with pytest.raises(AuthenticationError) as chinese:
        BeRayClient(server.base_url).list_tasks()

    assert english.value.error_detail.isascii()
    assert not chinese.value.error_detail.isascii()


def test_the_service_tells_about_itself(client: BeRayClient) -> None:
    assert client.get_health()
    assert client.get_ready()
    assert client.get_info()["version"]


def test_tasks_and_files_show_themselves_in_a_notebook(client: BeRayClient, done_task: int) -> None:
    shown = [client.get_task(done_task), client.list_tasks(), client.list_tasks()[0], client.list_files_tree(done_task)]
    html = [answer._repr_html_() for answer in shown]

    assert all("completed" in task for task in html[:3])
    assert "tool calls</summary>" in html[0]
    assert "hello" in html[3]


@pytest.mark.parametrize("kind", [BeRayClient, BlockingClient])
def test_a_run_with_its_files_gives_its_result(
    kind: Any, server: ServerProcess, client: BeRayClient, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("Zoe\nAda\n")
    seen: list[int] = []

    with kind(server.base_url, token=client.token) as user:
        result = user.run(
            "`sort names.txt > sorted.txt`",
            files=[tmp_path / "names.txt"],
            on_event=lambda event: seen.append(event["seq"]),
        )
        places = result.raise_if_failed().download(tmp_path / "result")
        if kind is BlockingClient:
            places = user._run(places)

    assert [file["path"] for file in result.files] == ["names.txt", "sorted.txt"]
    assert [place.name for place in places] == ["names.txt", "sorted.txt"]
    assert (tmp_path / "result" / "sorted.txt").read_text() == "Ada\nZoe\n"
    assert seen == list(range(1, result.task["last_seq"] + 1))
