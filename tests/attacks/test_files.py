"""Attacks 27 to 40 and 42: on the files of a task, by its commands and by its user. 41 is in `test_unzip.py`."""

import io
import os
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import APIError
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.app import create_app
from beray.server.files.routes import TRUNCATED
from beray.server.files.zipstream import ZipPieces
from beray.server.settings import Settings
from beray.server.work_dirs.listing import TREE_DEPTH, TREE_ENTRIES
from beray.server.work_dirs.paths import MAX_DEPTH
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs
from tests.server.files.files_server import (
    MAX_UPLOAD_BYTES,
    FilesServer,
    TaskFiles,
    code_of,
    entries,
)
from tests.server.work_dirs.test_removal import make_deep
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

UID = 61237

WRITER = """
import os, sys
os.chdir(sys.argv[1])
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    try:
        os.makedirs(f"a/b{number % 7}/c", exist_ok=True)
        open(f"a/b{number % 7}/f{number}", "w").close()
        open(f"f{number}", "w").close()
    except OSError:
        pass
"""


@pytest.fixture
def task(files_server: FilesServer) -> TaskFiles:
    """A task with an empty work_dir."""
    return files_server.make_task()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no path may lead to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret-name").write_text("SECRET")
    return folder


HOSTILE_QUERIES = [
    "",
    "path",
    "path=",
    "path=..",
    "path=../../etc/passwd",
    "path=%2e%2e",
    "path=%2e%2e%2fetc%2fpasswd",
    "path=%252e%252e%252fetc",
    "path=/etc/passwd",
    "path=%2Fetc%2Fpasswd",
    "path=//etc/passwd",
    "path=a/../../x",
    "path=..%5c..%5cx",
    "path=C:%5cx",
    "path=a%00b",
    "path=a%0d%0ab",
    "path=%ff%fe",
    "path=%ed%a0%80",
    "path=" + "x" * 300,
    "path=" + "a/" * 2500,
    "path=" + "中" * 2000,
    "path=" + "/".join("a" * 200),
]


@pytest.mark.parametrize("query", HOSTILE_QUERIES)
def test_attack_27_hostile_path_is_refused_by_every_call(task: TaskFiles, query: str) -> None:
    (task.folder / "kept").write_text("x")
    calls: list[Callable[[], requests.Response]] = [
        lambda: task.session.get(f"{task.url}/content?{query}", timeout=30),
        lambda: task.session.delete(f"{task.url}/content?{query}", timeout=30),
        lambda: task.session.get(f"{task.url}/tree?{query or 'path=..'}", timeout=30),
        lambda: task.session.get(f"{task.url}/download?{query or 'path=..'}", timeout=30),
    ]

    answers = [call() for call in calls]

    assert {code_of(answer) for answer in answers} <= {"invalid_path", "file_not_found", "validation_error"}
    assert all(400 <= answer.status_code < 500 for answer in answers)
    assert os.listdir(task.folder) == ["kept"]


@pytest.mark.parametrize("query", [query for query in HOSTILE_QUERIES if "%f" not in query and "%ed" not in query])
def test_attack_27_hostile_path_is_not_written(task: TaskFiles, query: str) -> None:
    answer = task.session.put(f"{task.url}/content?{query}", data=b"x", timeout=30)

    assert (code_of(answer), answer.status_code) in {("invalid_path", 422), ("validation_error", 422)}
    assert os.listdir(task.folder) == []


@pytest.mark.parametrize("goal", ["{outside}", "../../outside/../{relative}", "up/../../../../../{relative}"])
def test_attack_28_link_out_is_refused_and_names_nothing(task: TaskFiles, outside: Path, goal: str) -> None:
    (task.folder / "up").mkdir()
    relative = os.path.relpath(outside, task.folder)
    (task.folder / "folder").symlink_to(goal.format(outside=outside, relative=relative))
    (task.folder / "link").symlink_to(f"{goal.format(outside=outside, relative=relative)}/secret-name")
    (task.folder / "passwd").symlink_to("/etc/passwd")

    answers = [
        task.get("link"),
        task.get("passwd"),
        task.request("GET", "content", params={"path": "passwd"}, headers={"Range": "bytes=0-3"}),
        task.get("folder/secret-name"),
        task.get("folder/nothing"),
        task.tree("folder"),
        task.put("folder/new", b"x"),
        task.delete("folder/secret-name"),
        task.zip("link"),
        task.zip("folder/secret-name"),
    ]

    assert [code_of(answer) for answer in answers] == ["invalid_path"] * len(answers)
    text = "".join(answer.text for answer in [*answers, task.tree()])
    assert "SECRET" not in text
    assert "root:" not in text
    assert "secret-name" not in task.tree().text
    assert [path.read_text() for path in outside.iterdir()] == ["SECRET"]


@pytest.mark.parametrize(
    "kind",
    [
        "fifo",
        "socket",
        "folder",
        pytest.param("character device", marks=pytest.mark.needs("root")),
        pytest.param("block device", marks=pytest.mark.needs("root")),
    ],
)
def test_attack_30_what_is_no_file_is_refused_and_nothing_waits(task: TaskFiles, kind: str) -> None:
    """A FIFO without a writer would block an ordinary open for ever; a request that hangs fails at its deadline.

    Reads can't block: files are opened with O_NONBLOCK, and what is no regular file is closed before a read.
    """
    target = task.folder / "it"
    make_no_file(target, kind)

    answers = [
        task.get("it"),
        task.get("it", {"Range": "bytes=0-9"}),
        task.request("GET", "content", params={"path": "./it"}, headers={"If-None-Match": '"x"'}),
    ]

    assert {answer.status_code for answer in answers} <= {403, 409, 422}
    assert {code_of(answer) for answer in answers} <= {"not_a_file", "file_not_permitted"}
    assert task.request("HEAD", "content", params={"path": "it"}).status_code == answers[0].status_code
    assert task.unzip() == ({"it/": b""} if kind == "folder" else {})
    assert [node["name"] for node in task.tree().json()] == (["it"] if kind == "folder" else [])
    assert task.delete("it").status_code == 200


def make_no_file(target: Path, kind: str) -> None:
    if kind == "folder":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "socket":
        os.mknod(target, stat.S_IFSOCK | 0o644)
    elif kind == "character device":
        os.mknod(target, stat.S_IFCHR | 0o644, os.makedev(1, 5))  # /dev/zero, which never ends
    else:
        os.mknod(target, stat.S_IFBLK | 0o644, os.makedev(7, 250))


def test_attack_30_fifo_with_a_writer_is_no_file_either(task: TaskFiles) -> None:
    os.mkfifo(task.folder / "it")
    reader = os.open(task.folder / "it", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(task.folder / "it", os.O_WRONLY)
    try:
        os.write(writer, b"planted")

        assert code_of(task.get("it")) == "not_a_file"
        assert task.put("it", b"a file").status_code == 200
        assert task.get("it").content == b"a file"
        assert os.read(reader, 100) == b"planted"
    finally:
        os.close(reader)
        os.close(writer)


def test_attack_31_hard_link_out_is_refused_where_nothing_confines_files(
    files_server: FilesServer, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_server, "work_dirs", WorkDirs(files_server.root, allows_hard_links=False))
    task = files_server.make_task()
    os.link(outside / "secret-name", task.folder / "link")
    (task.folder / "to-link").symlink_to("link")

    for answer in (task.get("link"), task.get("to-link"), task.get("link", {"Range": "bytes=0-1"})):
        assert code_of(answer) == "invalid_path"
        assert "SECRET" not in answer.text
    assert task.unzip() == {}
    assert task.put("link", b"mine").status_code == 200
    assert task.get("link").content == b"mine"
    assert (outside / "secret-name").read_text() == "SECRET"


@pytest.mark.needs("root")
def test_attack_31_hard_link_to_a_file_of_another_owner_is_refused(files_server: FilesServer, outside: Path) -> None:
    """Where commands are confined a task may link its own files, and no others."""
    task = files_server.make_task(owner=UID)
    os.link(outside / "secret-name", task.folder / "link")
    task.put("own", b"x")
    os.link(task.folder / "own", task.folder / "own-link")

    assert code_of(task.get("link")) == "invalid_path"
    assert task.unzip() == {"own": b"x", "own-link": b"x"}


@pytest.mark.parametrize(("sandbox", "is_refused"), [("none", True), ("auto", False)])
def test_attack_31_server_that_confines_nothing_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: str, is_refused: bool
) -> None:
    monkeypatch.setattr("beray.server.app._has_app", False)  # it is not started
    app = create_app(Settings(data_dir=tmp_path, sandbox=sandbox), Models(ModelChoice("beray:rules", "rules")))
    work_dir = app.tasks.deletions._work_dirs.create(1, owner=None)
    work_dir.write_bytes("own", b"x")
    os.link(work_dir.path / "own", work_dir.path / "link")

    assert [entry.path for entry in work_dir.walk()] == ([] if is_refused else ["link", "own"])


@pytest.mark.parametrize("name", ["link", "folder"])
def test_attack_32_upload_over_a_link_replaces_the_link(task: TaskFiles, outside: Path, name: str) -> None:
    (task.folder / "link").symlink_to(outside / "secret-name")
    (task.folder / "folder").symlink_to(outside)

    answer = task.put(name, b"new")

    assert answer.status_code == 200
    assert (task.folder / name).lstat().st_mode == stat.S_IFREG | 0o644
    assert task.get(name).content == b"new"
    assert [path.read_text() for path in outside.iterdir()] == ["SECRET"]


def test_attack_33_server_killed_in_mid_upload_leaves_the_old_content(
    make_server: Callable[..., ServerProcess],
) -> None:
    server = make_server().start()
    token = server.register("a@example.com")
    with BeRayClient(server.base_url, token=token) as client:
        task_id = client.create_task("`true`", hold=True)["id"]
        client.upload_file(task_id, "x", b"old")
    folder = server.data_dir / "tasks" / str(task_id) / "work"

    with begin_upload(server, task_id, token):
        wait_until(lambda: nameless_bytes(server) >= 4 << 20, what="an upload that has come to the disk")
        server.kill()

    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("x", b"old")]
    server.start()
    with BeRayClient(server.base_url, token=token) as client:
        assert client.get_file_content(task_id, "x").content == b"old"
        client.upload_file(task_id, "x", b"new")
        assert client.get_file_content(task_id, "x").content == b"new"


def begin_upload(server: ServerProcess, task_id: int, token: str) -> socket.socket:
    """An upload of 16 MiB of which 8 have come."""
    host, port = server.base_url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    client.sendall(
        f"PUT /api/v1/tasks/{task_id}/files/content?path=x HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {16 << 20}\r\n\r\n".encode()
    )
    client.sendall(b"n" * (8 << 20))
    return client


def nameless_bytes(server: ServerProcess) -> int:
    """The size of what the server has written to a file that has no name yet."""
    assert server.process is not None
    sizes = [0]
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = entry.readlink()
            if target.parent.name == "work" and target.name.startswith("#"):
                sizes.append(entry.stat().st_size)
        except FileNotFoundError:
            continue
    return max(sizes)


def test_attack_34_chunked_upload_over_the_limit_is_refused_without_a_rest(
    files_server: FilesServer, task: TaskFiles
) -> None:
    task.put("x", b"old")

    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_UPLOAD_BYTES // 100_000 + 5):
            yield b"n" * 100_000

    answers = [task.put("x", pieces()), task.put("a/new", pieces())]

    assert [(answer.status_code, code_of(answer)) for answer in answers] == [(413, "upload_too_large")] * 2
    assert task.get("x").content == b"old"
    assert os.listdir(task.folder) == ["x"]
    wait_until(lambda: not files_server.open_descriptors(), what="closed files")


@pytest.mark.parametrize(
    "raw",
    [
        b"plain.txt",
        b'quo"te;.txt',
        b"line\r\nX-Evil: 1",
        "é中😀.png".encode(),
        b"caf\xe9",
        b"back\\slash",
        b"50%41.txt",
    ],
)
def test_attack_35_any_name_makes_valid_headers_and_json(task: TaskFiles, raw: bytes) -> None:
    with open(os.fsencode(task.folder) + b"/" + raw, "w") as file:
        file.write("content")
    (node,) = task.tree().json()

    answer = task.get(node["path"])

    assert answer.content == b"content"
    assert "x-evil" not in answer.headers
    header = answer.headers["content-disposition"]
    parsed = BytesHeaderParser().parsebytes(f"Content-Disposition: {header}\n\n".encode())
    plain = str(parsed.get_param("filename", header="content-disposition"))
    name = unquote(header.rsplit("''", 1)[1]) if "filename*=" in header else plain
    assert name == raw.decode("utf-8", "replace").replace("\ufffd", "_")
    assert list(task.unzip().values()) == [b"content"]
    assert task.delete(node["path"]).status_code == 200


@pytest.mark.parametrize("name", ["page.html", "image.svg", "code.js", "page.xhtml", "feed.xml", "no-ending", "x.HTML"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-7"}])
def test_attack_36_browser_can_not_be_made_to_show_a_file_as_a_page(
    task: TaskFiles, name: str, headers: dict[str, str]
) -> None:
    task.put(name, b"<script>alert(1)</script>")

    answer = task.get(name, headers)

    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].split(";")[0] in {"application/octet-stream", "text/plain"}


@pytest.mark.parametrize("name", ["page.html", "PAGE.HTM", "image.svg", "picture.png", "notes.md", "data.csv", "x.pdf"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-7"}])
def test_attack_36_file_that_is_shown_is_no_page_of_ours(task: TaskFiles, name: str, headers: dict[str, str]) -> None:
    """Whoever asks `inline`: scripts run in an origin of their own, load and reach nothing, and only we frame it."""
    task.put(name, b"<script>alert(1)</script>")

    answer = task.get(name, headers, inline="true")

    assert answer.headers["content-disposition"].startswith("inline; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    policy = policy_of(answer)
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"
    assert not {"connect-src", "frame-src", "worker-src"} & policy.keys()
    may_script = answer.headers["content-type"].startswith("text/html")
    assert ("script-src" in policy) is may_script
    assert name == "x.pdf" or policy["sandbox"] == ("allow-scripts" if may_script else "")
    assert not any("http" in sources or "*" in sources for sources in policy.values())


@pytest.mark.parametrize("name", ["page.xhtml", "feed.xml", "no-ending", "x.swf", "x.zip", "x.html.bin", "x.mht"])
def test_attack_36_file_of_any_other_kind_is_not_shown(task: TaskFiles, name: str) -> None:
    task.put(name, b"<script>alert(1)</script>")

    answer = task.get(name, inline="true")

    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


def policy_of(answer: requests.Response) -> dict[str, str]:
    """The directives of its policy."""
    directives = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    return {name: sources for name, _, sources in directives}


@pytest.mark.parametrize(
    ("header", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-99999999999999999999", 200, b"0123456789"),
        ("bytes=0-1,5-6", 200, b"0123456789"),
        ("bytes=" + ",".join("0-" for _ in range(10_000)), 200, b"0123456789"),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), 200, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, b"0123456789"),
        ("bytes=--1", 200, b"0123456789"),
        ("bytes=0x1-2", 200, b"0123456789"),
        ("lines=0-1", 200, b"0123456789"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_attack_37_no_range_costs_more_than_the_file(
    task: TaskFiles, header: str, status: int, content: bytes | None
) -> None:
    task.put("x", b"0123456789")

    answer = task.get("x", {"Range": header})

    assert answer.status_code == status
    if content is None:
        assert code_of(answer) == "range_not_satisfiable"
    else:
        assert answer.content == content


FOLDERS, FILES_EACH = 100, 1000


def test_attack_38_tree_of_a_hundred_thousand_entries_is_cut_and_can_be_paged(task: TaskFiles) -> None:
    wide = task.folder / "wide"
    wide.mkdir()
    make_wide(wide)

    first = task.tree("wide").json()

    assert len(first) == FOLDERS
    assert sum(len(folder["children"]) for folder in first) == TREE_ENTRIES - FOLDERS
    assert [folder for folder in first if len(folder["children"]) < FILES_EACH and not folder.get("truncated")] == []
    pages = [task.tree(folder["path"]).json() for folder in first]
    assert {node["path"] for page in pages for node in page} == {
        f"wide/d{folder:02}/f{file:03}" for folder in range(FOLDERS) for file in range(FILES_EACH)
    }
    few = task.tree("wide", limit=10)
    assert (len(few.json()), few.headers[TRUNCATED]) == (10, "true")
    assert [task.delete(path).status_code for path in (first[0]["path"], "wide")] == [200, 200]
    assert task.tree().json() == []


def make_wide(folder: Path) -> None:
    for number in range(FOLDERS):
        (folder / f"d{number:02}").mkdir()
        descriptor = os.open(folder / f"d{number:02}", os.O_RDONLY)
        os.mknod("f000", stat.S_IFREG | 0o644, dir_fd=descriptor)
        for file in range(1, FILES_EACH):  # links of one file: that costs half
            os.link("f000", f"f{file:03}", src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.close(descriptor)


def test_attack_38_tree_a_thousand_deep_is_cut_and_can_be_deleted(task: TaskFiles) -> None:
    make_deep(task.folder, 1000)

    top = task.tree()
    below = task.tree("/".join(["deep"] * (MAX_DEPTH - 1)))

    assert top.text.count('"children"') == TREE_DEPTH
    assert top.text.count('"truncated":true') == 1
    assert [node["name"] for node in below.json()] == ["deep", "file"]
    assert code_of(task.tree("/".join(["deep"] * (MAX_DEPTH + 1)))) == "invalid_path"
    archive = task.zip().content
    assert max(name.count("/") for name in entries(archive)) == MAX_DEPTH
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.comment.startswith(b"Left out")
    assert task.delete("deep").status_code == 200
    assert os.listdir(task.folder) == ["file"]


def drain(pieces: ZipPieces) -> bytes:
    collected = b""
    while (piece := pieces.next()) is not None:
        collected += piece
    pieces.close()
    return collected


@pytest.mark.parametrize("change", ["shrinks", "grows", "vanishes"])
def test_attack_39_file_that_changes_while_it_is_zipped_leaves_a_valid_archive(task: TaskFiles, change: str) -> None:
    noise = os.urandom(4 << 20)
    for name in ("a", "b", "c"):
        (task.folder / name).write_bytes(noise)
    pieces = ZipPieces(task.work_dir.walk())
    first = pieces.next()
    assert first is not None

    for name in ("a", "b"):
        if change == "shrinks":
            os.truncate(task.folder / name, 1 << 20)
        elif change == "grows":
            with open(task.folder / name, "ab") as file:
                file.write(noise)
        else:
            (task.folder / name).unlink()
    found = entries(first + drain(pieces))

    sizes = {name: len(content) for name, content in found.items()}
    assert sizes["c"] == 4 << 20
    assert all(noise.startswith(content[: 1 << 20]) for content in found.values())
    expected = {"shrinks": {1 << 20}, "grows": {8 << 20}, "vanishes": {None}}[change]
    assert {sizes.get("b")} == expected
    assert sizes["a"] == (1 << 20 if change == "shrinks" else 4 << 20)


def test_attack_40_zip_of_links_has_no_byte_from_outside(task: TaskFiles, outside: Path) -> None:
    task.put("results/summary.txt", b"sum")
    (task.folder / "out").symlink_to(outside / "secret-name")
    (task.folder / "out-folder").symlink_to(outside)
    (task.folder / "gone").symlink_to("nothing")
    (task.folder / "around").symlink_to("..")
    (task.folder / "self").symlink_to(".")
    (task.folder / "inside").symlink_to("results/summary.txt")
    os.mkfifo(task.folder / "fifo")

    answer = task.zip()

    assert entries(answer.content) == {"inside": b"sum", "results/": b"", "results/summary.txt": b"sum"}
    assert b"SECRET" not in answer.content
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.comment.endswith(b": 6")


@pytest.mark.needs("root")
def test_attack_42_running_writer_does_not_keep_a_task_from_being_deleted(tmp_path: Path, outside: Path) -> None:
    work_dirs = WorkDirs(tmp_path / "tasks")
    work_dir = work_dirs.create(1, owner=UID)
    work_dir.path.joinpath("link").symlink_to(outside)
    with running_writer(work_dir) as writer:
        try:
            work_dirs.delete(1)
            assert writer.poll() is None
            assert os.listdir(work_dirs.root) == []
        finally:
            writer.kill()
    assert (outside / "secret-name").read_text() == "SECRET"


def running_writer(work_dir: WorkDir) -> "subprocess.Popen[str]":
    """A command of the task's uid that adds files as fast as it can, whatever becomes of its folder."""
    command = [sys.executable, "-c", WRITER, str(work_dir.path), str(UID)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


BUSY = """```bash
ln -s {outside} out; ln -s {outside}/secret-name secret; ln -s ../.. up; mkdir -p a/b; touch begun
n=0; while :; do n=$((n+1)); mkdir -p a/b$((n%7)); echo x > a/b$((n%7))/f$n; done
```"""


def test_attack_42_deleted_task_takes_nothing_but_its_work_dir(server: ServerProcess, client: BeRayClient) -> None:
    outside = server.data_dir.parent / f"outside-{os.getpid()}"
    outside.mkdir(mode=0o777)
    (outside / "secret-name").write_text("SECRET")
    other = client.create_task("`true`", hold=True)["id"]
    client.upload_file(other, "mine", b"other")
    task_id = client.create_task(BUSY.format(outside=outside))["id"]
    wait_until(lambda: "begun" in {node["name"] for node in client.list_files_tree(task_id)}, what="a running writer")

    client.delete_task(task_id)

    with pytest.raises(APIError, match="task_not_found"):
        client.get_task(task_id)
    assert not (server.data_dir / "tasks" / str(task_id)).exists()
    assert client.get_file_content(other, "mine").content == b"other"
    assert [path.read_text() for path in outside.iterdir()] == ["SECRET"]
