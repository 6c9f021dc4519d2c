"""Uploads: what is read, sent again, hashed and told. Content of every kind is in `test_methods.py`."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from beray.client import BeRayClient
from beray.exceptions import ConnectionFailed, UploadDamaged
from beray.transfers.uploads import UPLOAD_CHUNK_BYTES, SeekableBody, UploadBody
from tests.support.loopback import Exchange, LoopbackServer, drop, reply

LARGE = os.urandom(UPLOAD_CHUNK_BYTES * 2 + 5)


def stored(content: bytes) -> Any:
    return reply(201, {"path": "f", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})


@pytest.fixture
def pipe() -> Iterator[Callable[[bytes], BinaryIO]]:
    """Makes the reading end of a pipe into which a thread writes."""
    threads: list[threading.Thread] = []
    opened: list[BinaryIO] = []

    def make(content: bytes) -> BinaryIO:
        reading, writing = os.pipe()

        def write() -> None:
            with os.fdopen(writing, "wb") as file:
                file.write(content)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        opened.append(os.fdopen(reading, "rb"))
        return opened[-1]

    yield make
    for file in opened:
        file.close()
    for thread in threads:
        thread.join(20)


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_what_the_server_has_is_compared_with_what_was_sent(
    peer: LoopbackServer, peer_client: BeRayClient, content: bytes
) -> None:
    peer.script(stored(content), stored(content + b"!"), reply(201, {"sha256": ""}), reply(201, {"path": "f"}))

    assert peer_client.upload_file(1, "f", content)["size"] == len(content)
    with pytest.raises(UploadDamaged, match="f was damaged"):
        peer_client.upload_file(1, "f", content)
    for _ in range(2):  # a server that doesn't tell is believed
        peer_client.upload_file(1, "f", content)


@pytest.mark.parametrize("content", [b"", b"small", LARGE, "text"])
def test_progress_is_told_up_to_the_end(peer: LoopbackServer, peer_client: BeRayClient, content: bytes | str) -> None:
    told: list[tuple[int, int | None]] = []
    peer.script(reply(201, {}))

    peer_client.upload_file(1, "f", content, progress=lambda *now: told.append(now))

    assert told == sorted(told)
    assert told[-1] == (len(content), len(content))


def test_progress_begins_anew_when_an_upload_is_repeated(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    told: list[int] = []
    peer.script(drop, stored(LARGE))

    peer_client.upload_file(1, "f", io.BytesIO(LARGE), progress=lambda done, total: told.append(done))

    assert told.count(UPLOAD_CHUNK_BYTES) == 2
    assert told[-1] == len(LARGE)


def test_pipe_is_sent_as_it_comes(
    peer: LoopbackServer, peer_client: BeRayClient, pipe: Callable[[bytes], BinaryIO]
) -> None:
    told: list[tuple[int, int | None]] = []
    arrived: list[bytes] = []

    def take(exchange: Exchange) -> None:
        arrived.append(chunked_body(exchange))
        stored(arrived[0])(exchange)

    peer.script(take)

    peer_client.upload_file(1, "f", pipe(LARGE), progress=lambda *now: told.append(now))

    assert arrived == [LARGE]
    assert peer.received[0].headers["transfer-encoding"] == "chunked"
    assert told[-1] == (len(LARGE), None)


def chunked_body(exchange: Exchange) -> bytes:
    body = b""
    while size := int(exchange.rfile.readline(), 16):
        body += exchange.rfile.read(size)
        exchange.rfile.readline()
    exchange.rfile.readline()
    return body


def test_pipe_is_never_sent_twice(
    peer: LoopbackServer, peer_client: BeRayClient, pipe: Callable[[bytes], BinaryIO]
) -> None:
    peer.script(drop, stored(b""))

    with pytest.raises(ConnectionFailed):
        peer_client.upload_file(1, "f", pipe(b"x"))

    assert len(peer.received) == 1


def test_file_that_becomes_shorter_while_it_is_sent_is_said_once(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    peer.always(reply(201, {}))

    def shorten(done: int, total: int | None) -> None:
        os.truncate(path, done)

    with pytest.raises(UploadDamaged, match="became shorter"):
        peer_client.upload_file(1, "f", path, progress=shorten)


def test_file_that_grows_is_sent_as_it_was(peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    peer.script(stored(LARGE))

    def grow(done: int, total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    peer_client.upload_file(1, "f", path, progress=grow)

    assert peer.received[0].body == LARGE


class Broken(io.RawIOBase):
    """A file on a disk that fails."""

    name = "/mnt/broken"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")


def test_file_that_can_not_be_read_is_named(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """It is no network failure, though the HTTP library takes any OSError for one."""
    peer.always(reply(201, {}))

    with pytest.raises(UploadDamaged, match="/mnt/broken could not be read") as error:
        peer_client.upload_file(1, "f", Broken())

    assert isinstance(error.value.__cause__, OSError)


def test_failure_of_the_source_wins_over_what_a_library_makes_of_it() -> None:
    body = UploadBody(Broken())

    with pytest.raises(UploadDamaged):
        body.next_piece()

    assert isinstance(body.failure, UploadDamaged)


class TextWithoutEncoding:
    def read(self, size: int) -> str:
        return "text"


def test_source_that_gives_no_bytes_is_refused(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(reply(201, {}))

    with pytest.raises(UploadDamaged, match="binary mode"):
        peer_client.upload_file(1, "f", TextWithoutEncoding())


def test_body_without_an_event_loop_and_with_one_is_read_the_same() -> None:
    """`__iter__` is `restart`, `next_piece` and `report`, which an event loop calls one by one."""
    told: list[int] = []
    body = SeekableBody(io.BytesIO(LARGE), progress=lambda done, total: told.append(done))

    whole = b"".join(body)
    body.restart()
    by_hand = b""
    while piece := body.next_piece():
        by_hand += piece
        body.report()

    assert whole == by_hand == LARGE
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert body.sha256 == hashlib.sha256(LARGE).hexdigest()
    assert len(body) == body.size == len(LARGE)


def test_path_is_read_and_text_is_not_taken_for_one(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"content")
    peer.always(reply(201, {}))

    peer_client.upload_file(1, "f", tmp_path / "f")
    peer_client.upload_file(1, "f", str(tmp_path / "f"))

    assert [one.body for one in peer.received] == [b"content", str(tmp_path / "f").encode()]


@pytest.mark.parametrize("kind", [BrokenPipeError, ValueError])
def test_what_the_progress_raises_ends_the_upload(
    peer: LoopbackServer, peer_client: BeRayClient, kind: type[Exception]
) -> None:
    peer.always(reply(201, {}))

    def fail(done: int, total: int | None) -> None:
        raise kind("no more")

    with pytest.raises(Exception, match="no more") as error:
        peer_client.upload_file(1, "f", LARGE, progress=fail)

    assert isinstance(error.value.__cause__ or error.value, kind)
    assert len(peer.received) <= 1
