"""What a client is made of, and how it lives: options, tokens, uploads, failures, threads, processes.

The methods one by one are in test_methods.py, streams in test_stream.py.
"""

import io
import os
import pickle
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import (
    AuthenticationError,
    BeRayException,
    ConnectionFailed,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    TLSError,
)
from tests.support.loopback import Exchange, LoopbackServer, cut_body, drop, reply


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/api/v1/", "http://localhost:8000"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("https://例子.中国/beray/", "https://xn--fsqu00a.xn--fiqs8s/beray"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_base_url_is_brought_in_form(given: str, kept: str) -> None:
    assert BeRayClient(given).base_url == kept


@pytest.mark.parametrize(
    "given", ["", "localhost:8000", "ftp://h", "http://", "http://h?a=b", "http://h#f", "http://user:secret@h", None]
)
def test_a_base_url_that_can_not_be_right_is_refused(given: Any) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the library's own words for some
        BeRayClient(given)

    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": (1, None)}, {"stream_timeout": -1}, {"max_retries": -1}]
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BeRayClient("http://h", **options)


def test_the_token_never_shows_in_a_repr() -> None:
    assert repr(BeRayClient("http://h", token="s3cret")) == "BeRayClient('http://h', with token)"


def test_a_login_without_a_token_in_its_answer_is_refused(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, {"user": {}}))

    with pytest.raises(ProtocolError, match="access_token"):
        peer_client.login("a@b.c", "p")

    assert peer_client.token == "t0k"


def test_a_refused_login_keeps_the_old_token(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(401, {"detail": "wrong", "code": "invalid_credentials"}))

    with pytest.raises(AuthenticationError):
        peer_client.login("a@b.c", "p")

    assert peer_client.token == "t0k"


def test_a_log_out_that_did_not_arrive_can_be_tried_again(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.logout()

    assert peer_client.token == "t0k"


def test_a_password_of_netrc_does_not_replace_the_token(
    peer: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests would send it in the token's place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer.always(reply(200, []))

    with requests.Session() as session:
        BeRayClient(peer.url, token="t0k", session=session).list_tasks()
    BeRayClient(peer.url, token="t0k").list_tasks()
    BeRayClient(peer.url).list_tasks()

    assert [one.headers.get("authorization") for one in peer.received] == ["Bearer t0k", "Bearer t0k", None]


def test_each_creation_has_a_key_of_its_own_kept_across_repetitions(
    peer: LoopbackServer, peer_client: BeRayClient, waits: list[float]
) -> None:
    peer.script(
        reply(503, {"detail": "starting"}, {"Retry-After": "2", "Idempotency-Supported": "true"}),
        drop,
        reply(201, {"id": 1}),
        reply(201, {"id": 2}),
    )

    assert peer_client.create_task("g", ["shell"])["id"] == 1
    assert peer_client.create_task(goal="g")["id"] == 2

    keys = [one.headers["idempotency-key"] for one in peer.received]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]
    assert peer.received[0].json == {"goal": "g", "tools": ["shell"]}
    assert len(waits) == 2


def test_a_key_of_the_callers_own_is_used(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, {"id": 1}))

    peer_client.create_task("g", hold=True, idempotency_key="k-1")

    assert peer.received[0].headers["idempotency-key"] == "k-1"
    assert peer.received[0].json == {"goal": "g", "tools": None, "hold": True}


def test_a_server_that_is_not_ready_says_what_is_missing(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(503, {"engine": "starting"}))

    assert peer_client.get_ready() == {"engine": "starting"}


@pytest.mark.parametrize(
    ("path", "content", "given", "sent"),
    [
        ("a.png", b"x", None, "image/png"),
        ("a", b"x", None, "application/octet-stream"),
        ("a", "x", None, "text/plain; charset=utf-8"),
        ("a.png", b"x", "application/x-own", "application/x-own"),
    ],
)
def test_the_content_type_is_guessed_unless_given(
    peer: LoopbackServer, peer_client: BeRayClient, path: str, content: bytes | str, given: str | None, sent: str
) -> None:
    peer.script(reply(201, {}))

    peer_client.upload_file(1, path, content, given)

    assert peer.received[0].headers["content-type"] == sent


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "path", "file", "buffer", "temporary"])
def test_content_of_every_kind_arrives_whole(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path, kind: str, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    peer.script(reply(201, {}))

    with (tmp_path / "f").open("rb") as opened, tempfile.NamedTemporaryFile() as temporary:
        temporary.write(data)
        temporary.seek(0)
        content: Any = {
            "bytes": data,
            "bytearray": bytearray(data),
            "path": tmp_path / "f",
            "file": opened,
            "buffer": io.BytesIO(data),
            "temporary": temporary,
        }[kind]
        peer_client.upload_file(1, "f", content)

    assert peer.received[0].body == data
    assert peer.received[0].headers["content-length"] == str(size)
    assert "transfer-encoding" not in peer.received[0].headers


def test_a_file_is_sent_from_where_it_stands_at_every_attempt(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop, reply(503), reply(201, {}))
    source = io.BytesIO(b"head|" + b"x" * 300_000)
    source.seek(5)

    peer_client.upload_file(1, "f", source)

    assert [one.body for one in peer.received] == [b"x" * 300_000] * 3


@pytest.mark.parametrize("content", [None, 5, ["a"], io.StringIO("text")])
def test_content_of_another_type_is_refused(peer: LoopbackServer, peer_client: BeRayClient, content: Any) -> None:
    with pytest.raises(TypeError, match="content must be bytes"):
        peer_client.upload_file(1, "f", content)

    assert peer.received == []


def test_a_missing_file_is_the_callers_own_error(peer_client: BeRayClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        peer_client.upload_file(1, "f", tmp_path / "missing")


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_download_is_an_exception_not_a_response(
    peer: LoopbackServer, peer_client: BeRayClient, stream: bool
) -> None:
    peer.always(reply(404, {"detail": "没有", "code": "file_not_found"}))

    with pytest.raises(NotFoundError) as one:
        peer_client.get_file_content(1, "a", stream=stream)
    with pytest.raises(NotFoundError):
        peer_client.download_files_as_zip(1, ["a"], stream=stream)

    assert (one.value.code, one.value.error_detail) == ("file_not_found", "没有")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as held:  # bound, but not listening: nobody else can have the port
        held.bind(("127.0.0.1", 0))
        client = BeRayClient(f"http://127.0.0.1:{held.getsockname()[1]}", max_retries=0)

        with pytest.raises(ConnectionFailed, match="could not be reached: Connection refused") as error:
            client.list_tasks()

    assert not error.value.was_sent
    assert error.value.__cause__ is not None


def test_a_cut_answer_is_a_connection_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(cut_body, drop, cut_body)

    with pytest.raises(ConnectionFailed, match="was cut"):
        peer_client.list_tasks()


def test_a_body_that_stops_coming_is_a_timeout(peer: LoopbackServer) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Length": "10"})
        exchange.wait_for_close()

    peer.script(stall)

    with pytest.raises(RequestTimeout, match="nothing came"):
        BeRayClient(peer.url, timeout=0.2, max_retries=0).list_tasks()


def test_a_secure_connection_that_fails_is_not_tried_again(peer: LoopbackServer, waits: list[float]) -> None:
    with pytest.raises(TLSError, match="no secure connection") as error:
        BeRayClient(peer.url.replace("http:", "https:")).list_tasks()

    assert not error.value.was_sent
    assert waits == []


def test_a_missing_certificate_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    with pytest.raises(TLSError, match=r"/nowhere/ca\.pem"):
        BeRayClient("https://127.0.0.1:1").list_tasks()


def test_errors_of_a_real_call_can_be_pickled(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(404, {"detail": "没有"}), drop)

    for call in (lambda: peer_client.get_task(1), peer_client.logout):
        with pytest.raises(BeRayException) as error:
            call()
        pickled = pickle.dumps(error.value)
        assert str(pickle.loads(pickled)) == str(error.value)
        assert b"t0k" not in pickled


def test_many_threads_share_a_client(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    def echo(exchange: Exchange) -> None:
        reply(200, {"path": exchange.path})(exchange)

    peer.always(echo)

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(peer_client.get_task, range(300)))

    assert [task["path"] for task in results] == [f"/api/v1/tasks/{n}" for n in range(300)]
    assert peer.connections <= 16


def test_closing_ends_the_connections(peer: LoopbackServer) -> None:
    left = threading.Event()

    def answer_then_watch(exchange: Exchange) -> None:
        reply(200, [])(exchange)
        exchange.wfile.flush()
        exchange.wait_for_close()
        left.set()

    peer.script(answer_then_watch)

    with BeRayClient(peer.url) as client:
        client.list_tasks()
        assert not left.is_set()

    assert left.wait(10)


def test_a_client_can_be_pickled(peer: LoopbackServer) -> None:
    peer.always(reply(200, []))
    client = BeRayClient(peer.url, "t0k", timeout=(1, 2), stream_timeout=3, max_retries=4, language="en")
    client.list_tasks()

    again = pickle.loads(pickle.dumps(client))
    again.list_tasks()

    assert peer.received[1].headers == peer.received[0].headers
    with requests.Session() as session, pytest.raises(TypeError, match="session of your own"):
        pickle.dumps(BeRayClient(peer.url, session=session))


def test_after_a_fork_parent_and_child_share_no_connection(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.always(reply(200, []))
    peer_client.list_tasks()

    monkeypatch.setattr("beray.client.os.getpid", lambda: -1)
    peer_client.list_tasks()

    assert peer.connections == 2
