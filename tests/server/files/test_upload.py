import hashlib
import os
import socket

import pytest
from fastapi import Request

from beray.server.db.auth import UserRow
from beray.server.errors import Refused
from beray.server.files import service
from tests.server.files.files_server import MAX_UPLOAD_BYTES, OWNER, FakeAccounts, FilesServer, TaskFiles, code_of
from tests.support.waiting import wait_until


def test_new_file_is_created_and_an_old_one_replaced(task: TaskFiles) -> None:
    created = task.put("source_code/main.py", b"print('Hello, BeRay!')")
    replaced = task.put("source_code/main.py", b"2")

    assert (created.status_code, replaced.status_code) == (201, 200)
    assert created.json() == {
        "message": created.json()["message"],
        "path": "source_code/main.py",
        "size": 22,
        "sha256": hashlib.sha256(b"print('Hello, BeRay!')").hexdigest(),
    }
    assert replaced.headers["etag"] == task.get("source_code/main.py").headers["etag"]
    assert task.get("source_code/main.py").content == b"2"


def test_message_is_in_the_language_asked_for(task: TaskFiles) -> None:
    assert "已上传" in task.put("x", b"", {"Accept-Language": "zh-CN"}).json()["message"]
    assert "uploaded" in task.put("x", b"", {"Accept-Language": "en"}).json()["message"]
    refused = task.get("../x", {"Accept-Language": "zh"}).json()["detail"]
    assert ".." in refused
    assert "it " not in refused


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, MAX_UPLOAD_BYTES])
def test_body_of_any_size_arrives_whole(task: TaskFiles, size: int) -> None:
    content = os.urandom(size)

    answer = task.put("x", content)

    assert (answer.status_code, answer.json()["size"]) == (201, size)
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert task.get("x").content == content


@pytest.mark.parametrize(
    "sizes",
    [[100_000] * 40, [20_000, *[1] * 2000, 300_000, 5, 2 << 20, *[7] * 300, 16 << 10, 1, 1 << 20]],
    ids=["large pieces", "large and tiny ones"],
)
def test_chunked_body_arrives_whole(task: TaskFiles, sizes: list[int]) -> None:
    """Large pieces are written as they came, tiny ones joined; the order is that of the body."""
    pieces = [os.urandom(size) for size in sizes]

    answer = task.put("x", iter(pieces))

    assert answer.status_code == 201
    assert answer.json()["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert task.get("x").content == b"".join(pieces)


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "nonsense", ""])
def test_content_type_does_not_matter(task: TaskFiles, content_type: str) -> None:
    assert task.put("x", b"{not json", {"Content-Type": content_type}).status_code == 201
    assert task.get("x").content == b"{not json"


def test_announced_body_over_the_limit_is_refused(task: TaskFiles) -> None:
    task.put("x", b"old")

    answer = task.put("x", b"n" * (MAX_UPLOAD_BYTES + 1))

    assert (answer.status_code, code_of(answer)) == (413, "upload_too_large")
    assert str(MAX_UPLOAD_BYTES) in answer.json()["detail"]
    assert task.get("x").content == b"old"


def send(server: FilesServer, task: TaskFiles, headers: str, body: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    request = (
        f"PUT /api/v1/tasks/{task.id}/files/content?path=x HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {OWNER.email}\r\n{headers}\r\n"
    )
    client.sendall(request.encode() + body)
    return client


def test_announced_body_over_the_limit_is_not_even_asked_for(files_server: FilesServer, task: TaskFiles) -> None:
    """A client that waits for `100 Continue` gets the refusal instead and sends nothing."""
    headers = f"Content-Length: {MAX_UPLOAD_BYTES + 1}\r\nExpect: 100-continue\r\n"

    with send(files_server, task, headers) as client:
        assert client.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 3000000\r\n", b"n" * 2_000_000),
        ("Transfer-Encoding: chunked\r\n", b"100000\r\n" + b"n" * 0x100000 + b"\r\n5\r\nab"),
    ],
)
def test_cut_upload_changes_nothing(files_server: FilesServer, task: TaskFiles, headers: str, body: bytes) -> None:
    task.put("x", b"old")
    client = send(files_server, task, headers, body)
    wait_until(lambda: any("work/#" in path or "deleted" in path for path in files_server.open_descriptors()))

    client.close()

    wait_until(lambda: not files_server.open_descriptors(), what="closed files")
    assert task.get("x").content == b"old"
    assert os.listdir(task.folder) == ["x"]


def test_upload_that_stalls_is_refused(
    files_server: FilesServer, task: TaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    task.put("x", b"old")

    with send(files_server, task, "Content-Length: 100\r\n", b"half") as client:
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400")

    wait_until(lambda: not files_server.open_descriptors(), what="closed files")
    assert task.get("x").content == b"old"


def test_login_that_ends_during_an_upload_leaves_what_was_there(
    files_server: FilesServer, task: TaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.put("a.txt", b"before")
    asked = []

    async def end_after_one(self: FakeAccounts, request: Request) -> UserRow:
        asked.append(request)
        if len(asked) > 1:
            raise Refused("not_authenticated")
        return OWNER

    monkeypatch.setattr(FakeAccounts, "authenticate", end_after_one)
    answer = task.put("a.txt", b"after")
    monkeypatch.undo()

    assert answer.status_code == 401
    assert task.get("a.txt").content == b"before"


def test_cut_upload_of_a_new_file_makes_no_folders(files_server: FilesServer, task: TaskFiles) -> None:
    with socket.create_connection(("127.0.0.1", files_server.port), timeout=30) as client:
        client.sendall(
            f"PUT /api/v1/tasks/{task.id}/files/content?path=a/b/c HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {OWNER.email}\r\nContent-Length: 100\r\n\r\nhalf".encode()
        )
        wait_until(files_server.open_descriptors)

    wait_until(lambda: not files_server.open_descriptors(), what="closed files")
    assert os.listdir(task.folder) == []


def test_upload_to_a_folder_or_through_a_file_is_refused(task: TaskFiles) -> None:
    task.put("folder/file", b"x")

    assert (task.put("folder", b"").status_code, code_of(task.put("folder", b""))) == (409, "path_is_directory")
    assert code_of(task.put("folder/", b"")) == "invalid_path"
    assert code_of(task.put(".", b"")) == "invalid_path"
    assert code_of(task.put("folder/file/x", b"")) == "not_a_directory"
    assert task.get("folder/file").content == b"x"


def test_condition_protects_what_somebody_else_wrote(task: TaskFiles) -> None:
    first = task.put("x", b"1").headers["etag"]
    second = task.put("x", b"2", {"If-Match": first})

    lost = task.put("x", b"3", {"If-Match": first})

    assert second.status_code == 200
    assert (lost.status_code, code_of(lost)) == (412, "precondition_failed")
    assert code_of(task.put("x", b"3", {"If-None-Match": "*"})) == "precondition_failed"
    assert code_of(task.put("new", b"3", {"If-Match": "*"})) == "precondition_failed"
    assert task.put("new", b"3", {"If-None-Match": "*"}).status_code == 201
    assert task.get("x").content == b"2"


def test_connection_goes_on_after_a_refused_path(files_server: FilesServer, task: TaskFiles) -> None:
    """What was not read of the body must not be taken for the next request."""
    with send(files_server, task, "Content-Length: 1\r\n", b"1") as client:
        assert client.recv(12) == b"HTTP/1.1 201"
    for _ in range(3):
        assert task.put("../x", b"n" * 300_000).status_code == 422
        assert task.put("y", b"1").status_code in {200, 201}


@pytest.mark.needs("root")
def test_uploaded_file_belongs_to_the_task(files_server: FilesServer) -> None:
    task = files_server.make_task(owner=61236)

    task.put("a/x", b"1")

    assert {(task.folder / path).stat().st_uid for path in ("a", "a/x")} == {61236}
