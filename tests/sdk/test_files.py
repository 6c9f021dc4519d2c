"""Files by the SDK against the real server: up, down, cut on the way, and back again."""

import asyncio
import base64
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from beray import AsyncBeRayClient, extract_zip_safely
from beray.client import BeRayClient
from beray.exceptions import NotFoundError, RequestTimeout
from beray.transfers.zip_end import is_whole_zip
from tests.server.files.files_server import OWNER, FilesServer, TaskFiles
from tests.support.loopback import Exchange, LoopbackServer, reply

BIG = os.urandom(3_000_000)


@pytest.fixture
def task(files_server: FilesServer) -> TaskFiles:
    return files_server.make_task()


@pytest.fixture
def owner(files_server: FilesServer, new_client: Callable[..., BeRayClient]) -> BeRayClient:
    return new_client(files_server.base_url, token=OWNER.email, language="en")


def test_file_goes_up_and_comes_back(owner: BeRayClient, task: TaskFiles, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(BIG)

    answer = owner.upload_file(task.id, "数据/big.bin", tmp_path / "local")
    target = owner.download_file(task.id, "数据/big.bin", tmp_path)

    assert answer["sha256"] == hashlib.sha256(BIG).hexdigest()
    assert (target, target.read_bytes()) == (tmp_path / "big.bin", BIG)
    assert owner.download_file(task.id, "数据/big.bin", tmp_path, overwrite=False) == target
    (tmp_path / "other").write_text("mine")
    with pytest.raises(FileExistsError):
        owner.download_file(task.id, "数据/big.bin", tmp_path / "other", overwrite=False)
    with pytest.raises(NotFoundError):
        owner.download_file(task.id, "nowhere", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.bin", "local", "other"]


def test_pipe_goes_up(owner: BeRayClient, task: TaskFiles) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)

    with os.fdopen(reading, "rb") as pipe:
        answer = owner.upload_file(task.id, "x", pipe)

    assert answer["size"] == 11
    assert task.get("x").content == b"from a pipe"


def test_download_that_is_cut_on_the_way_goes_on(
    task: TaskFiles, peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    """Through a peer that passes everything on, and cuts the first three answers."""
    task.put("big.bin", BIG)
    ranges: list[str | None] = []
    peer.always(lambda exchange: pass_on(exchange, peer, task, ranges))

    target = peer_client.download_file(task.id, "big.bin", tmp_path)

    assert target.read_bytes() == BIG
    assert ranges[0] is None
    assert len(ranges) == 4
    assert all(given is not None and given.startswith("bytes=") for given in ranges[1:])


def pass_on(exchange: Exchange, peer: LoopbackServer, task: TaskFiles, ranges: list[str | None]) -> None:
    asked = peer.received[-1].headers
    ranges.append(asked.get("range"))
    names = ("range", "if-range", "want-repr-digest")
    answer = task.get("big.bin", {name: asked[name] for name in names if name in asked})
    kept = ("Content-Length", "Content-Range", "ETag", "Repr-Digest")
    headers = {name: answer.headers[name] for name in kept if name in answer.headers}
    exchange.begin(answer.status_code, {"Content-Type": "application/octet-stream", **headers})
    exchange.wfile.write(answer.content if len(ranges) > 3 else answer.content[:700_000])
    exchange.close_connection = True


KILLED = """
import os, signal, sys
from beray.client import BeRayClient

def die(done, total):
    if done > 2_500_000:
        os.kill(os.getpid(), signal.SIGKILL)

url, token, task, to = sys.argv[1:]
BeRayClient(url, token=token).download_file(int(task), "big.bin", to, progress=die)
"""


def test_download_of_a_process_that_was_killed_goes_on_in_another(
    owner: BeRayClient, task: TaskFiles, files_server: FilesServer, tmp_path: Path
) -> None:
    task.put("big.bin", BIG)
    told: list[int] = []

    arguments = [files_server.base_url, OWNER.email, str(task.id), str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=60, check=False)
    target = owner.download_file(task.id, "big.bin", tmp_path, progress=lambda done, total: told.append(done))

    assert killed.returncode == -signal.SIGKILL
    assert told[0] >= (1 << 20) - 1
    assert target.read_bytes() == BIG
    assert [path.name for path in tmp_path.iterdir()] == ["big.bin"]


async def test_cancelled_download_keeps_what_came(files_server: FilesServer, task: TaskFiles, tmp_path: Path) -> None:
    task.put("big.bin", BIG)
    told: list[int] = []

    async with AsyncBeRayClient(files_server.base_url, token=OWNER.email) as client:

        def cancel(done: int, total: int | None) -> None:
            if done > 2_000_000:
                downloading.cancel()

        downloading = asyncio.create_task(client.download_file(task.id, "big.bin", tmp_path, progress=cancel))
        with pytest.raises(asyncio.CancelledError):
            await downloading
        target = await client.download_file(
            task.id, "big.bin", tmp_path, progress=lambda done, total: told.append(done)
        )

    assert told[0] > 1_900_000
    assert target.read_bytes() == BIG
    assert [path.name for path in tmp_path.iterdir()] == ["big.bin"]


def test_file_that_was_changed_since_the_cut_is_taken_anew(owner: BeRayClient, task: TaskFiles, tmp_path: Path) -> None:
    task.put("x", BIG)

    def interrupt(done: int, total: int | None) -> None:
        if done > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        owner.download_file(task.id, "x", tmp_path, progress=interrupt)
    parts = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
    assert len(parts) == 1
    assert parts[0].read_bytes() == BIG[: parts[0].stat().st_size]
    task.put("x", b"new")

    assert owner.download_file(task.id, "x", tmp_path).read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_folder_goes_up_and_comes_back_and_again(owner: BeRayClient, task: TaskFiles, tmp_path: Path) -> None:
    content = {"a.txt": b"a", "sub/图.bin": BIG[:300_000], "sub/deep/empty": b""}
    for name, data in content.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)

    answers = owner.upload_dir(task.id, tmp_path / "up", "in")
    first = owner.download_dir(task.id, "in", tmp_path / "down")
    (tmp_path / "down" / "a.txt").unlink()
    again = owner.download_dir(task.id, "in", tmp_path / "down")

    assert [answer["path"] for answer in answers] == [f"in/{name}" for name in sorted(content)]
    assert first == again == [tmp_path / "down" / name for name in ("a.txt", "sub/deep/empty", "sub/图.bin")]
    assert {path.relative_to(tmp_path / "down").as_posix(): path.read_bytes() for path in again} == content


def test_large_folder_is_listed_to_its_end(
    owner: BeRayClient, task: TaskFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More entries than one listing shows: the server says where it cut, and is asked again there."""
    monkeypatch.setattr("beray.server.work_dirs.work_dir.TREE_DEPTH", 2)
    for name in ("1/2/3/4/x", "1/y", "z"):
        task.put(name, name.encode())

    owner.download_dir(task.id, ".", tmp_path)

    assert (tmp_path / "1/2/3/4/x").read_bytes() == b"1/2/3/4/x"
    assert (tmp_path / "1/y").read_bytes() == b"1/y"


def test_archive_comes_and_is_unpacked(owner: BeRayClient, task: TaskFiles, tmp_path: Path) -> None:
    task.put("a/x.txt", b"x")
    task.put("b.bin", BIG)
    told: list[tuple[int, int | None]] = []

    archive = owner.download_zip(task.id, tmp_path, progress=lambda *now: told.append(now))
    part = owner.download_zip(task.id, tmp_path / "part.zip", ["a"])
    files = extract_zip_safely(archive, tmp_path / "unpacked")

    assert archive == tmp_path / f"task-{task.id}.zip"
    assert {path.relative_to(tmp_path / "unpacked").as_posix() for path in files} == {"a/x.txt", "b.bin"}
    assert (tmp_path / "unpacked" / "b.bin").read_bytes() == BIG
    with zipfile.ZipFile(part) as opened:
        assert [name for name in opened.namelist() if not name.endswith("/")] == ["a/x.txt"]
    assert told[-1] == (archive.stat().st_size, None)
    with pytest.raises(NotFoundError):
        owner.download_zip(task.id, tmp_path / "missing.zip", ["nowhere"])
    assert not (tmp_path / "missing.zip").exists()


def test_large_archive_is_known_whole_by_its_64_bit_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # more files need the larger records
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            archive.writestr(str(number), b"x")
    content = path.read_bytes()
    assert b"PK\x06\x06" in content

    assert is_whole_zip(path)
    for at in range(len(content)):
        path.write_bytes(content[:at] + content[at + 1 :])
        assert not is_whole_zip(path), at


def test_file_that_is_there_is_known_through_a_redirect(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    """Unlike a PUT, a HEAD loses nothing by it."""
    (tmp_path / "x").write_bytes(b"content")
    digest = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    peer.script(
        reply(301, {}, {"Location": f"{peer.url}/elsewhere"}),
        reply(200, b"content", {"Repr-Digest": f"sha-256=:{digest}:"}),
    )

    assert peer_client.download_file(1, "x", tmp_path, overwrite=False) == tmp_path / "x"

    assert [(one.method, one.path) for one in peer.received][1] == ("HEAD", "/elsewhere")


def test_silent_server_is_told_by_the_read_timeout(
    peer: LoopbackServer, new_client: Callable[..., BeRayClient], tmp_path: Path
) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Length": "100", "ETag": '"e"'})
        exchange.wfile.write(b"12345")
        exchange.wait_for_close()

    peer.always(stall)
    client = new_client(peer.url, token="t", timeout=0.3, max_retries=0)
    with pytest.raises(RequestTimeout):
        client.download_file(1, "x", tmp_path)
