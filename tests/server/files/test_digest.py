"""`Want-Repr-Digest` and `Repr-Digest`."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from beray.server.files import service
from beray.server.files.digest import repr_digest, sha256_of, wants_sha256
from beray.server.work_dirs.open_file import OpenFile
from tests.server.files.files_server import FilesServer, TaskFiles, code_of
from tests.support.waiting import wait_until

WISH = {"Want-Repr-Digest": "sha-256=10"}
ENDLESS = 1 << 40


def field_of(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.parametrize(
    ("header", "is_wanted"),
    [
        ("sha-256=10", True),
        ("sha-512=3, sha-256=1", True),
        (" sha-256 = 1 ;x=y", True),
        ("sha-256=0", False),
        ("sha-512=10", False),
        ("sha-256", False),
        ("sha-2560=1", False),
        ("sha-256=-1", False),
        ("", False),
        (None, False),
    ],
)
def test_wish_is_understood(header: str | None, is_wanted: bool) -> None:
    assert wants_sha256(header) is is_wanted


def test_digest_is_of_the_whole_file_whatever_part_is_sent(task: TaskFiles) -> None:
    content = bytes(range(256)) * 1000
    task.put("x.bin", content)
    etag = task.get("x.bin").headers["etag"]

    whole = task.get("x.bin", WISH)
    part = task.get("x.bin", {**WISH, "Range": "bytes=5-9", "If-Range": etag})
    head = task.request("HEAD", "content", params={"path": "x.bin"}, headers=WISH)

    assert (whole.status_code, part.status_code, head.status_code) == (200, 206, 200)
    assert {answer.headers["repr-digest"] for answer in (whole, part, head)} == {field_of(content)}
    assert (whole.content, part.content, head.content) == (content, content[5:10], b"")


def test_digest_is_not_computed_for_who_does_not_ask_or_gets_no_bytes(
    task: TaskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.put("x", b"1")
    etag = task.get("x").headers["etag"]

    def compute(*arguments: object) -> None:
        raise AssertionError("nobody asked")

    monkeypatch.setattr("beray.server.files.service.sha256_of", compute)

    assert "repr-digest" not in task.get("x").headers
    assert task.get("x", {**WISH, "If-None-Match": etag}).status_code == 304
    assert code_of(task.get("x", {**WISH, "Range": "bytes=7-"})) == "range_not_satisfiable"
    assert code_of(task.get("x", {**WISH, "If-Match": '"other"'})) == "precondition_failed"


def test_empty_file_has_a_digest_too(task: TaskFiles) -> None:
    task.put("empty", b"")

    assert task.get("empty", WISH).headers["repr-digest"] == field_of(b"")


def test_file_that_takes_too_long_is_sent_without(
    task: TaskFiles, files_server: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DIGEST_SECONDS", 0.05)
    with (task.folder / "endless").open("wb") as file:
        file.truncate(ENDLESS)

    with task.get("endless", WISH, stream=True) as answer:
        assert answer.status_code == 200
        assert "repr-digest" not in answer.headers

    wait_until(lambda: not files_server.open_descriptors(), what="the descriptors to be closed")


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[OpenFile]:
    """A file that takes minutes to read."""
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(ENDLESS)
    with OpenFile(os.open(path, os.O_RDONLY), ENDLESS, 0, '"e"') as opened:
        yield opened


async def test_client_that_has_gone_ends_the_work(endless: OpenFile) -> None:
    async def is_gone() -> bool:
        return True

    with pytest.raises(ClientDisconnect):
        await sha256_of(endless, is_gone)


async def test_cancelled_work_ends_and_lets_the_file_be_closed(endless: OpenFile) -> None:
    looked = asyncio.Event()

    async def is_gone() -> bool:
        looked.set()
        return False

    working = asyncio.create_task(sha256_of(endless, is_gone))
    async with asyncio.timeout(20):
        await looked.wait()
    working.cancel()

    with pytest.raises(asyncio.CancelledError):
        await working


async def test_file_that_became_shorter_has_no_digest(tmp_path: Path) -> None:
    async def is_gone() -> bool:
        return False

    path = tmp_path / "x"
    path.write_bytes(b"123")
    with OpenFile(os.open(path, os.O_RDONLY), 3, 0, '"e"') as opened:
        assert await sha256_of(opened, is_gone) == hashlib.sha256(b"123").digest()
        path.write_bytes(b"1")
        assert await sha256_of(opened, is_gone) is None


def test_field_has_the_form_of_the_standard() -> None:
    assert repr_digest(hashlib.sha256(b"").digest()) == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
