import errno
import os
import socket
import struct
import threading
from urllib.parse import quote

import pytest
import requests

from beray.server.connection import BoundedConnection
from beray.server.files import streaming
from tests.server.files.files_server import OWNER, STRANGER, FilesServer, TaskFiles, code_of
from tests.support.waiting import wait_until

BIG = 24 << 20  # more than the buffers of server, kernel and client together hold
ENDLESS = 1 << 40  # a file of nothing that would take minutes to read


def test_file_is_served_whole_with_its_validators(task: TaskFiles) -> None:
    task.put("results/summary.txt", b"hello")

    answer = task.get("results/summary.txt")

    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["content-length"] == "5"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith("GMT")
    assert task.get("results/summary.txt", {"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert task.get("results/summary.txt", {"If-Modified-Since": answer.headers["last-modified"]}).status_code == 304
    assert task.get("results/summary.txt", {"If-None-Match": '"x"'}).status_code == 200
    assert code_of(task.get("results/summary.txt", {"If-Match": '"x"'})) == "precondition_failed"


def test_empty_file_is_served(task: TaskFiles) -> None:
    task.put("empty", b"")

    answer = task.get("empty")

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


def test_head_has_the_headers_and_no_body(task: TaskFiles) -> None:
    task.put("x.bin", b"12345")
    got = task.get("x.bin")

    head = task.request("HEAD", "content", params={"path": "x.bin"})

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type", "content-disposition", "accept-ranges"):
        assert head.headers[name] == got.headers[name]
    assert task.request("HEAD", "content", params={"path": "nothing"}).status_code == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("a.pdf", "application/pdf"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.csv", "text/plain; charset=utf-8"),
        ("a.json", "text/plain; charset=utf-8"),
        ("sub/中文.py", "text/plain; charset=utf-8"),
    ],
)
def test_file_can_be_asked_for_to_be_shown(task: TaskFiles, name: str, kind: str) -> None:
    task.put(name, b"0123456789")

    shown = task.get(name, inline="true")
    plain = task.get(name)

    assert (shown.content, shown.headers["content-type"]) == (b"0123456789", kind)
    assert shown.headers["content-disposition"] == plain.headers["content-disposition"].replace("attachment", "inline")
    assert shown.headers["etag"] == plain.headers["etag"]
    assert task.get(name, {"Range": "bytes=2-4"}, inline="true").content == b"234"
    assert task.get(name, {"If-None-Match": shown.headers["etag"]}, inline="true").status_code == 304


def test_how_a_file_is_asked_for_is_checked(task: TaskFiles) -> None:
    task.put("a.html", b"x")

    assert task.get("a.html", inline="false").headers["content-disposition"].startswith("attachment")
    assert task.get("a.html", inline="1").headers["content-disposition"].startswith("inline")
    assert code_of(task.get("a.html", inline="sure")) == "validation_error"
    assert code_of(task.get("a.html", inline="")) == "validation_error"


def test_range_gives_a_part(task: TaskFiles) -> None:
    task.put("x", b"0123456789")

    part = task.get("x", {"Range": "bytes=2-4"})

    assert (part.status_code, part.content) == (206, b"234")
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 2-4/10", "3")
    assert task.get("x", {"Range": "bytes=-2"}).content == b"89"
    assert task.get("x", {"Range": "bytes=0-1", "If-Range": '"old"'}).content == b"0123456789"
    assert task.get("x", {"Range": "bytes=0-1", "If-Range": part.headers["etag"]}).content == b"01"
    assert task.get("x", {"Range": "bytes=0-1,5-6"}).content == b"0123456789"


def test_range_outside_says_how_long_the_file_is(task: TaskFiles) -> None:
    task.put("x", b"0123456789")

    answer = task.get("x", {"Range": "bytes=10-"})

    assert code_of(answer) == "range_not_satisfiable"
    assert answer.headers["content-range"] == "bytes */10"


def test_deleted_file_is_gone(task: TaskFiles) -> None:
    task.put("a/x", b"1")
    task.put("a/y", b"1")

    answer = task.delete("a/x")

    assert answer.status_code == 200
    assert "a/x" in answer.json()["message"]
    assert code_of(task.get("a/x")) == "file_not_found"
    assert code_of(task.delete("a/x")) == "file_not_found"
    assert task.delete("a/").status_code == 200
    assert task.tree().json() == []


@pytest.mark.parametrize(
    ("task_id", "status"), [("0", 404), ("-1", 404), ("999", 404), (str(2**63), 404), (str(10**40), 404), ("x", 422)]
)
def test_unknown_task_is_not_found(files_server: FilesServer, task_id: str, status: int) -> None:
    url = f"{files_server.base_url}/tasks/{task_id}/files"
    query = {"path": "x"}

    answers = [
        files_server.session.get(f"{url}/tree", timeout=30),
        files_server.session.get(f"{url}/content", params=query, timeout=30),
        files_server.session.put(f"{url}/content", params=query, data=b"x", timeout=30),
        files_server.session.delete(f"{url}/content", params=query, timeout=30),
        files_server.session.post(f"{url}/download", timeout=30),
        files_server.session.get(f"{url}/download", timeout=30),
    ]

    assert {answer.status_code for answer in answers} == {status}


def test_other_people_find_no_task_and_nobody_gets_in_without_a_token(task: TaskFiles) -> None:
    task.put("x", b"mine")
    for token, code in ((STRANGER.email, "task_not_found"), ("nobody", "not_authenticated")):
        headers = {"Authorization": f"Bearer {token}"}
        answers = [
            task.get("x", headers),
            task.put("x", b"theirs", headers),
            task.request("DELETE", "content", params={"path": "x"}, headers=headers),
            task.request("GET", "tree", headers=headers),
            task.request("POST", "download", headers=headers),
            task.request("GET", "download", headers=headers),
        ]
        assert {code_of(answer) for answer in answers} == {code}
    assert task.get("x").content == b"mine"


def test_large_file_of_a_file_system_that_cannot_do_that_is_sent_in_pieces(
    task: TaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sendfile(*args: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "sendfile", sendfile)
    task.put("big", b"x" * (1 << 20))

    assert task.get("big").content == b"x" * (1 << 20)


@pytest.fixture(params=["sent by the kernel", "sent in pieces"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way, all the same for the client."""
    monkeypatch.setattr(streaming, "SENDFILE_LEAST", 1 if request.param == "sent by the kernel" else 1 << 62)
    return str(request.param)


both_ways = pytest.mark.usefixtures("way")


@both_ways
def test_large_file_and_its_parts_are_right_on_one_connection(task: TaskFiles) -> None:
    """The next answer begins where the one before ended."""
    content = os.urandom(5 << 20)
    task.put("big", content)

    for _ in range(3):
        assert task.get("big").content == content
        assert task.get("big", {"Range": f"bytes=1000-{3 << 20}"}).content == content[1000 : (3 << 20) + 1]
        assert task.request("HEAD", "content", params={"path": "big"}).headers["content-length"] == str(len(content))


def test_large_file_is_sent_by_the_kernel(task: TaskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter way is taken, not only allowed."""
    sent: list[int] = []

    def sendfile(out: int, source: int, offset: int, count: int) -> int:
        sent.append(plain_sendfile(out, source, offset, count))
        return sent[-1]

    plain_sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", sendfile)
    task.put("big", b"x" * (1 << 20))

    task.get("big")

    assert sum(sent) == 1 << 20


def begin_download(server: FilesServer, path: str) -> socket.socket:
    """A client that asks for a file and reads nothing yet."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OWNER.email}\r\n\r\n"
    client.sendall(request.encode())
    return client


def read_to_the_end(client: socket.socket) -> tuple[bytes, bytes]:
    received = bytearray()
    while chunk := client.recv(1 << 16):
        received += chunk
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return head, body


@both_ways
def test_file_that_shrinks_while_it_is_served_cuts_the_connection(
    files_server: FilesServer, task: TaskFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """The client must see that it has not got what Content-Length promised; the operator reads why."""
    (task.folder / "big").write_bytes(b"x" * BIG)
    with begin_download(files_server, f"/api/v1/tasks/{task.id}/files/content?path=big") as client:
        client.recv(1000, socket.MSG_PEEK)
        os.truncate(task.folder / "big", BIG // 2)
        head, body = read_to_the_end(client)

    assert f"content-length: {BIG}".encode() in head
    assert 0 < len(body) <= BIG // 2 + (4 << 20)
    assert set(body) == {ord("x")}
    assert "download cut" in caplog.text
    wait_until(lambda: not files_server.open_descriptors(), what="closed files")


@both_ways
def test_file_that_grows_or_is_replaced_is_served_as_it_was(files_server: FilesServer, task: TaskFiles) -> None:
    (task.folder / "big").write_bytes(b"x" * BIG)
    with begin_download(files_server, f"/api/v1/tasks/{task.id}/files/content?path=big") as client:
        client.recv(1000, socket.MSG_PEEK)
        with open(task.folder / "big", "ab") as file:
            file.write(b"y" * 1000)
        task.put("big", b"new")
        head = client.recv(1 << 12).partition(b"\r\n\r\n")
        body = bytearray(head[2])
        while len(body) < BIG:
            body += client.recv(1 << 16)

    assert body == b"x" * BIG
    assert task.get("big").content == b"new"


@both_ways
@pytest.mark.parametrize("path", ["content?path=big", "download?path=big"])
def test_client_that_leaves_closes_the_file(files_server: FilesServer, task: TaskFiles, path: str) -> None:
    (task.folder / "big").touch()
    os.truncate(task.folder / "big", ENDLESS)
    client = begin_download(files_server, f"/api/v1/tasks/{task.id}/files/{path}")
    client.recv(1000)
    assert any(target.endswith("/big") for target in files_server.open_descriptors())

    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave without a word
    client.close()

    wait_until(lambda: not files_server.open_descriptors(), what="closed files")


@both_ways
def test_many_downloads_at_once_are_each_right(files_server: FilesServer, task: TaskFiles) -> None:
    contents = {f"f{number}": os.urandom(3 << 20) for number in range(8)}
    for name, content in contents.items():
        task.put(name, content)
    got: dict[str, bytes] = {}

    def download(name: str) -> None:
        url = f"{task.url}/content?path={quote(name)}"
        got[name] = requests.get(url, headers={"Authorization": f"Bearer {OWNER.email}"}, timeout=60).content

    threads = [threading.Thread(target=download, args=(name,)) for name in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert got == contents
    wait_until(lambda: not files_server.open_descriptors(), what="closed files")


@both_ways
def test_client_that_takes_nothing_is_dropped(
    files_server: FilesServer, task: TaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(BoundedConnection, "silence_seconds", 0.2)
    (task.folder / "big").write_bytes(b"x" * BIG)

    with begin_download(files_server, f"/api/v1/tasks/{task.id}/files/content?path=big") as client:
        client.recv(1000, socket.MSG_PEEK)
        wait_until(lambda: not files_server.open_descriptors(), what="closed files")
        head, body = read_to_the_end(client)

    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) < BIG
