"""Every method of the specification: what it sends, what it returns.

How a client is made and lives is in test_client.py, what goes wrong in test_failures.py, streams in test_stream.py.
"""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import AuthenticationError, ConnectionFailed, NotFoundError, ProtocolError
from tests.support.loopback import LoopbackServer, drop, reply

SESSION = {"access_token": "new-token", "token_type": "bearer", "expires_in": 60, "user": {"id": 1, "email": "a@b.c"}}


METHODS = [
    ("request_verification_code", ("a@b.c",), "POST", "/api/v1/auth/request-verification-code"),
    ("request_password_reset", ("a@b.c",), "POST", "/api/v1/auth/request-verification-code"),
    ("reset_password", ("a@b.c", "123456", "password"), "POST", "/api/v1/auth/reset-password"),
    ("get_current_user", (), "GET", "/api/v1/users/me"),
    ("get_usage", (), "GET", "/api/v1/users/me/usage"),
    ("list_tokens", (), "GET", "/api/v1/users/me/tokens"),
    ("create_token", ("ci",), "POST", "/api/v1/users/me/tokens"),
    ("delete_token", (3,), "DELETE", "/api/v1/users/me/tokens/3"),
    ("get_webhook", (), "GET", "/api/v1/users/me/webhook"),
    ("set_webhook", ("https://h.example/",), "PUT", "/api/v1/users/me/webhook"),
    ("delete_webhook", (), "PUT", "/api/v1/users/me/webhook"),
    ("create_task", ("goal",), "POST", "/api/v1/tasks/"),
    ("start_task", (3,), "POST", "/api/v1/tasks/3/start"),
    ("send_message", (3, "go on"), "POST", "/api/v1/tasks/3/messages"),
    ("get_task", (3,), "GET", "/api/v1/tasks/3"),
    ("stop_task", (3,), "POST", "/api/v1/tasks/3/stop"),
    ("delete_task", (3,), "DELETE", "/api/v1/tasks/3"),
    ("list_files_tree", (3,), "GET", "/api/v1/tasks/3/files/tree"),
    ("delete_file", (3, "a"), "DELETE", "/api/v1/tasks/3/files/content"),
    ("upload_file", (3, "a", b"x"), "PUT", "/api/v1/tasks/3/files/content"),
]


@pytest.mark.parametrize(("name", "arguments", "method", "path"), METHODS)
def test_method_sends_its_call_and_returns_the_json(
    peer: LoopbackServer, peer_client: BeRayClient, name: str, arguments: tuple[Any, ...], method: str, path: str
) -> None:
    peer.script(reply(200, {"some": "值"}))

    result = getattr(peer_client, name)(*arguments)

    assert result == {"some": "值"}
    received = peer.received[0]
    assert (received.method, received.path) == (method, path)
    assert received.headers["authorization"] == "Bearer t0k"


def test_a_server_that_is_not_ready_says_what_is_missing(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(503, {"engine": "starting"}))

    assert peer_client.get_ready() == {"engine": "starting"}


# Accounts


@pytest.mark.parametrize(
    ("log_in", "path"),
    [
        (lambda client: client.register("a@b.c", "123456", "password"), "/api/v1/auth/register"),
        (lambda client: client.login("a@b.c", "password"), "/api/v1/auth/login"),
        (lambda client: client.login_with_form("a@b.c", "password"), "/api/v1/auth/token"),
    ],
)
def test_logging_in_keeps_the_token(peer: LoopbackServer, log_in: Any, path: str) -> None:
    peer.script(reply(200, SESSION), reply(200, {}))
    with BeRayClient(peer.url) as client:
        assert log_in(client) == SESSION

        client.get_current_user()

    assert peer.received[0].path == path
    assert "authorization" not in peer.received[0].headers
    assert peer.received[1].headers["authorization"] == "Bearer new-token"


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


def test_logging_out_forgets_the_token(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, {"message": "已成功登出"}), reply(401, {"detail": "未登录"}))

    assert peer_client.logout()["message"] == "已成功登出"

    with pytest.raises(AuthenticationError):
        peer_client.get_current_user()
    assert "authorization" not in peer.received[1].headers


def test_logging_out_of_an_expired_session_forgets_the_token_too(
    peer: LoopbackServer, peer_client: BeRayClient
) -> None:
    peer.script(reply(401, {"detail": "expired"}))

    with pytest.raises(AuthenticationError):
        peer_client.logout()

    assert peer_client.token is None


def test_a_log_out_that_did_not_arrive_can_be_tried_again(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.logout()

    assert peer_client.token == "t0k"


# Tasks


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


# Files


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


@pytest.mark.parametrize(
    ("path", "content", "given", "sent"),
    [
        ("a.png", b"x", None, "image/png"),
        ("a", b"x", None, "application/octet-stream"),
        ("a", "中文", None, "text/plain; charset=utf-8"),
        ("a.png", "中文", "application/x-own", "application/x-own"),
    ],
)
def test_the_content_type_is_guessed_unless_given(
    peer: LoopbackServer, peer_client: BeRayClient, path: str, content: bytes | str, given: str | None, sent: str
) -> None:
    peer.script(reply(201, {}))

    peer_client.upload_file(1, path, content, given)

    assert peer.received[0].headers["content-type"] == sent
    assert peer.received[0].body == (content.encode() if isinstance(content, str) else content)


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
