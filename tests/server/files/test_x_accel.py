"""Files that nginx sends: what BeRay tells it, and, where there is one, that the documentation's site works."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import requests

from beray.server.files import x_accel
from beray.server.files.x_accel import open_x_accel
from beray.server.settings import SettingError, Settings
from tests.server.files.files_server import X_ACCEL_PREFIX, FilesServer, TaskFiles
from tests.support.nginx import Nginx, running_nginx
from tests.support.snippets import FENCE

ASKED = {"X-Sendfile-Type": "X-Accel-Redirect"}
NAMES = ("a.txt", "folder/b c.txt", "数据?.csv", "100%.txt", "a%2e%2e%2fb", "#1&x=2;", "new\nline", "~.+'\"")
PAGE = Path(__file__).parents[3] / "docs" / "en" / "behind-nginx.md"


def place_of(task: TaskFiles, path: str) -> str:
    """Where nginx is sent for a file of the task's work_dir."""
    return "/".join((X_ACCEL_PREFIX, str(task.id), "work", path))


def test_nginx_gets_the_name_and_no_bytes(task: TaskFiles) -> None:
    task.put("results/x.txt", b"hello")
    plain = task.get("results/x.txt")

    answer = task.get("results/x.txt", ASKED)

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert answer.headers["x-accel-redirect"] == place_of(task, "results/x.txt")
    for name in ("etag", "last-modified", "content-type", "content-disposition", "content-security-policy"):
        assert answer.headers[name] == plain.headers[name]
    assert task.get("results/x.txt", ASKED, inline="true").headers["content-disposition"].startswith("inline")


def test_whoever_comes_past_nginx_gets_the_bytes(task: TaskFiles) -> None:
    task.put("x", b"hello")

    answer = task.get("x")

    assert answer.content == b"hello"
    assert "x-accel-redirect" not in answer.headers


@pytest.mark.parametrize("name", NAMES)
def test_name_is_spelled_so_that_nothing_of_it_means_anything(task: TaskFiles, name: str) -> None:
    (task.folder / name).parent.mkdir(exist_ok=True)
    (task.folder / name).write_bytes(b"1")

    place = task.get(name, ASKED).headers["x-accel-redirect"]

    assert not set(place) & set("?#&;\n\r ")
    assert unquote_to_bytes(place) == place_of(task, name).encode()


def test_name_that_is_no_text_is_spelled_by_its_bytes(task: TaskFiles) -> None:
    Path(os.fsdecode(bytes(task.folder) + b"/\xff.bin")).write_bytes(b"1")

    place = task.get("\uefff.bin", ASKED).headers["x-accel-redirect"]

    assert place == place_of(task, "%FF.bin")


def test_link_within_is_named_by_where_it_leads(task: TaskFiles) -> None:
    """nginx refuses every link."""
    task.put("real/x", b"1")
    (task.folder / "link").symlink_to("real")

    place = task.get("link/x", ASKED).headers["x-accel-redirect"]

    assert place == place_of(task, "real/x")


@pytest.mark.parametrize(
    ("headers", "status_code"),
    [
        ({"Range": "bytes=1-2"}, 206),
        ({"Range": "bytes=0-1,3-4"}, 200),
        ({"Range": "bytes=1-2", "If-Range": '"other"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
    ],
)
def test_what_nginx_would_decide_anew_is_sent_here(task: TaskFiles, headers: dict[str, str], status_code: int) -> None:
    task.put("x", b"hello")

    answer = task.get("x", headers | ASKED)

    assert answer.status_code == status_code
    assert answer.content
    assert "x-accel-redirect" not in answer.headers


def test_answers_without_bytes_stay_as_they_are(task: TaskFiles) -> None:
    task.put("x", b"hello")
    task.put("empty", b"")
    etag = task.get("x").headers["etag"]

    answers = [
        task.get("x", ASKED | {"If-None-Match": etag}),
        task.request("HEAD", "content", params={"path": "x"}, headers=ASKED),
        task.get("empty", ASKED),
        task.get("nothing", ASKED),
    ]

    assert [answer.status_code for answer in answers] == [304, 200, 200, 404]
    assert not any("x-accel-redirect" in answer.headers for answer in answers)


def test_no_descriptor_stays_open(files_server: FilesServer, task: TaskFiles) -> None:
    task.put("x", b"hello")

    task.get("x", ASKED)

    assert not any(name.startswith(str(task.folder)) for name in files_server.open_descriptors())


def test_setting_is_refused_where_nothing_confines_commands(tmp_path: Path) -> None:
    """They could link files of others into their work_dir, which nginx would send."""
    settings = replace(Settings(), x_accel_prefix=X_ACCEL_PREFIX, sandbox="none")

    with pytest.raises(SettingError, match="BERAY_SANDBOX=none"):
        open_x_accel(settings, tmp_path)

    assert open_x_accel(replace(settings, sandbox="auto"), tmp_path) is not None
    assert open_x_accel(replace(settings, x_accel_prefix=None), tmp_path) is None


@pytest.mark.parametrize("value", ["beray-files", "/", "/a b", "/a/", "/a?b", "http://a/b"])
def test_prefix_must_be_a_path(value: str) -> None:
    with pytest.raises(SettingError, match="BERAY_X_ACCEL_PREFIX"):
        Settings.load({"BERAY_X_ACCEL_PREFIX": value})


# With a real nginx


@pytest.fixture
def nginx(files_server: FilesServer, tmp_path: Path) -> Iterator[Nginx]:
    """The site of the documentation, in front of the server."""
    site = [code for kind, code in FENCE.findall(PAGE.read_text(encoding="utf-8")) if kind == "nginx"][-1]
    site = site.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{files_server.port}")
    with running_nginx(tmp_path / "nginx", site.replace("/srv/beray/tasks", str(files_server.root))) as running:
        yield running


def through(
    nginx: Nginx, task: TaskFiles, path: str, headers: dict[str, str] | None = None, **params: str
) -> requests.Response:
    """GET a file by way of nginx."""
    host, port = nginx.address
    url = f"http://{host}:{port}/api/v1/tasks/{task.id}/files/content"
    return task.session.get(url, params={"path": path, **params}, headers=headers, timeout=30)


@pytest.mark.needs("nginx")
def test_nginx_sends_the_same_answer(nginx: Nginx, task: TaskFiles) -> None:
    content = os.urandom(3 << 20)
    task.put("report.bin", content)
    digest = {"Want-Repr-Digest": "sha-256=10"}
    plain = task.get("report.bin", digest)

    answer = through(nginx, task, "report.bin", digest)

    assert answer.headers["server"].startswith("nginx")
    assert answer.content == content
    own = {"server", "date", "connection", "keep-alive", "x-request-id", "idempotency-supported"}
    for name in {name.lower() for name in plain.headers} - own:
        assert answer.headers[name] == plain.headers[name], name
    assert answer.headers["x-request-id"]


@pytest.mark.needs("nginx")
def test_nginx_shows_a_file_as_we_would(nginx: Nginx, task: TaskFiles) -> None:
    for name in ("page.html", "report.pdf", "picture.svg", "notes.txt"):
        task.put(name, b"<script>alert(1)</script>")
        plain = task.get(name, inline="true")

        answer = through(nginx, task, name, inline="true")

        assert answer.headers["server"].startswith("nginx")
        assert answer.headers["content-disposition"].startswith("inline")
        for header in ("content-type", "content-disposition", "content-security-policy", "x-content-type-options"):
            assert answer.headers[header] == plain.headers[header], name


@pytest.mark.needs("nginx")
def test_nginx_finds_every_name(nginx: Nginx, task: TaskFiles) -> None:
    for name in NAMES:
        (task.folder / name).parent.mkdir(exist_ok=True)
        (task.folder / name).write_bytes(name.encode())

        assert through(nginx, task, name).content == name.encode(), name


@pytest.mark.needs("nginx")
def test_parts_and_conditions_are_right_through_nginx(nginx: Nginx, task: TaskFiles) -> None:
    task.put("x", b"0123456789")
    etag = through(nginx, task, "x").headers["etag"]

    assert through(nginx, task, "x", {"Range": "bytes=2-4"}).content == b"234"
    assert through(nginx, task, "x", {"Range": "bytes=2-4", "If-Range": etag}).content == b"234"
    assert through(nginx, task, "x", {"Range": "bytes=2-4", "If-Range": '"x"'}).content == b"0123456789"
    assert through(nginx, task, "x", {"Range": "bytes=10-"}).status_code == 416
    assert through(nginx, task, "x", {"If-None-Match": etag}).status_code == 304
    assert through(nginx, task, "x", {"If-None-Match": '"x"'}).content == b"0123456789"
    assert through(nginx, task, "x", {"If-Match": etag}).content == b"0123456789"
    assert through(nginx, task, "x", {"If-Match": '"x"'}).status_code == 412


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_nginx_follows_no_link_that_was_put_there_meanwhile(
    nginx: Nginx, task: TaskFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """The command is as fast as can be: between our look and nginx's."""
    secret = tmp_path / "secret" / "x"
    secret.parent.mkdir()
    secret.write_bytes(b"nobody's business")
    task.put("folder/x", b"hello")
    folder = task.folder / "folder"
    plain_name_of = x_accel.XAccel.name_of

    def swap_behind(*args: object) -> str | None:
        name = plain_name_of(*args)  # type: ignore[arg-type]  # as it was called
        (folder / "x").unlink()
        if swapped == "file":
            (folder / "x").symlink_to(secret)
        else:
            folder.rmdir()
            folder.symlink_to(secret.parent)
        return name

    monkeypatch.setattr(x_accel.XAccel, "name_of", swap_behind)

    answer = through(nginx, task, "folder/x")

    assert answer.status_code in {403, 404}
    assert b"business" not in answer.content


@pytest.mark.needs("nginx")
def test_nobody_asks_nginx_for_files_himself(nginx: Nginx, task: TaskFiles) -> None:
    task.put("x", b"hello")
    host, port = nginx.address

    answer = requests.get(f"http://{host}:{port}{place_of(task, 'x')}", timeout=30)

    assert answer.status_code == 404
