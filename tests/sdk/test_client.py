import io
import json
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
    APIError,
    AuthenticationError,
    BeRayException,
    ConflictError,
    ConnectionFailed,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    TLSError,
    UnprocessableEntityError,
)
from tests.support.loopback import Exchange, LoopbackServer, cut_body, drop, reply, silence

SESSION = {"access_token": "new", "token_type": "bearer", "expires_in": 60, "user": {"id": 1, "email": "a@b.c"}}

# Making a client


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


@pytest.mark.parametrize("token", ["a\nb", "a\r", "密", "", " padded"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="token must be printable ASCII") as error:
        BeRayClient("http://h").set_token(token)

    assert not token.strip() or token not in str(error.value)


def test_the_token_never_shows_in_a_repr() -> None:
    assert repr(BeRayClient("http://h", token="s3cret")) == "BeRayClient('http://h', with token)"


# Accounts


def test_the_token_given_at_the_start_goes_with_every_call(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, {"id": 1}), reply(200, []))

    peer_client.get_current_user()
    peer_client.list_tasks()

    assert [one.headers["authorization"] for one in peer.received] == ["Bearer t0k"] * 2


@pytest.mark.parametrize(
    "log_in",
    [
        lambda client: client.login("a@b.c", "p"),
        lambda client: client.login_with_form("a@b.c", "p"),
        lambda client: client.register("a@b.c", "123456", "p"),
    ],
    ids=["login", "form", "register"],
)
def test_logging_in_keeps_the_token(peer: LoopbackServer, log_in: Any) -> None:
    peer.script(reply(200, SESSION), reply(200, {"id": 1}))
    client = BeRayClient(peer.url)

    assert log_in(client) == SESSION
    client.get_current_user()

    assert "authorization" not in peer.received[0].headers
    assert peer.received[1].headers["authorization"] == "Bearer new"


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
    peer.script(reply(200, {"message": "已成功登出"}), reply(401, {"detail": "no"}))

    assert peer_client.logout() == {"message": "已成功登出"}
    with pytest.raises(AuthenticationError):
        peer_client.get_current_user()

    assert "authorization" not in peer.received[1].headers


def test_logging_out_with_a_dead_token_forgets_it_too(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(401, {"detail": "no"}))

    with pytest.raises(AuthenticationError):
        peer_client.logout()

    assert peer_client.token is None


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


def test_a_creation_is_not_repeated_where_keys_may_be_ignored(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop)

    with pytest.raises(ConnectionFailed) as error:
        peer_client.create_task("g")

    assert error.value.was_sent
    assert len(peer.received) == 1


def test_a_key_of_the_callers_own_is_used(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, {"id": 1}))

    peer_client.create_task("g", hold=True, idempotency_key="k-1")

    assert peer.received[0].headers["idempotency-key"] == "k-1"
    assert peer.received[0].json == {"goal": "g", "tools": None, "hold": True}


def test_the_language_is_asked_for(peer: LoopbackServer) -> None:
    peer.script(reply(200, []))

    BeRayClient(peer.url, language="en").list_tasks()

    assert peer.received[0].headers["accept-language"] == "en"


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (lambda c: c.request_verification_code("a@b.c"), "POST", "/api/v1/auth/request-verification-code"),
        (lambda c: c.get_current_user(), "GET", "/api/v1/users/me"),
        (lambda c: c.start_task(3), "POST", "/api/v1/tasks/3/start"),
        (lambda c: c.list_tasks(), "GET", "/api/v1/tasks/"),
        (lambda c: c.get_task(task_id=3), "GET", "/api/v1/tasks/3"),
        (lambda c: c.stop_task(task_id=3), "POST", "/api/v1/tasks/3/stop"),
        (lambda c: c.delete_task(task_id=3), "DELETE", "/api/v1/tasks/3"),
        (lambda c: c.list_files_tree(task_id=3, path="output"), "GET", "/api/v1/tasks/3/files/tree"),
        (lambda c: c.delete_file(3, "a"), "DELETE", "/api/v1/tasks/3/files/content"),
        (lambda c: c.get_health(), "GET", "/health"),
        (lambda c: c.get_info(), "GET", "/api/v1/info"),
    ],
)
def test_every_method_gives_the_answers_json(
    peer: LoopbackServer, peer_client: BeRayClient, call: Any, method: str, path: str
) -> None:
    peer.script(reply(200, {"答": [1, None]}))

    assert call(peer_client) == {"答": [1, None]}
    assert (peer.received[0].method, peer.received[0].path) == (method, path)


def test_a_server_that_is_not_ready_says_what_is_missing(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(503, {"engine": "starting"}))

    assert peer_client.get_ready() == {"engine": "starting"}


# Files


def test_text_is_uploaded_as_utf8(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, {"path": "a"}))

    peer_client.upload_file(task_id=1, path="文件夹/名 称?#&.txt", content="你好\n")

    (sent,) = peer.received
    assert (sent.method, sent.path, sent.query) == (
        "PUT",
        "/api/v1/tasks/1/files/content",
        {"path": ["文件夹/名 称?#&.txt"]},
    )
    assert sent.body == "你好\n".encode()
    assert sent.headers["content-type"] == "text/plain"


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


def test_a_files_content_is_a_response_of_requests(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"\0\xff"))

    response = peer_client.get_file_content(task_id=1, path="a/中 文.bin")

    assert type(response) is requests.Response
    assert (response.ok, response.content) == (True, b"\0\xff")
    assert peer.received[0].query == {"path": ["a/中 文.bin"]}


def test_a_zip_is_a_response_of_requests(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(reply(200, b"PK"))

    assert peer_client.download_files_as_zip(task_id=1, paths=["a", "b/"]).content == b"PK"
    assert peer_client.download_files_as_zip(task_id=1).content == b"PK"

    assert [one.json for one in peer.received] == [{"paths": ["a", "b/"]}, {"paths": []}]


def test_a_streamed_download_is_read_by_the_caller(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"x" * 100_000))

    with peer_client.get_file_content(1, "a", stream=True) as response:
        assert not response._content_consumed  # type: ignore[attr-defined]
        assert b"".join(response.iter_content(1000)) == b"x" * 100_000


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


# Errors


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (reply(400, {"detail": "no"}), APIError, "no"),
        (reply(401, {"detail": "no"}), AuthenticationError, "no"),
        (reply(403, {"detail": "no"}), AuthenticationError, "no"),
        (reply(404, {"detail": "no"}), NotFoundError, "no"),
        (reply(409, {"detail": "no"}), ConflictError, "no"),
        (
            reply(422, {"detail": [{"loc": ["body"], "msg": "m"}]}),
            UnprocessableEntityError,
            [{"loc": ["body"], "msg": "m"}],
        ),
        (reply(500, b"Internal Server Error"), APIError, "Internal Server Error"),
        (reply(500, b""), APIError, ""),
    ],
)
def test_a_refused_call_raises_the_error_of_its_status(
    peer: LoopbackServer, peer_client: BeRayClient, answer: Any, kind: type[APIError], detail: object
) -> None:
    peer.script(answer)

    with pytest.raises(APIError) as error:
        peer_client.get_task(1)

    assert type(error.value) is kind
    assert error.value.error_detail == detail
    assert error.value.method == "GET"
    assert error.value.url == f"{peer.url}/api/v1/tasks/1"
    assert isinstance(error.value.response, requests.Response)


def test_a_success_that_is_not_json_is_a_protocol_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"<html>"))

    with pytest.raises(ProtocolError, match="base_url"):
        peer_client.list_tasks()


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


def test_a_silent_server_is_a_timeout(peer: LoopbackServer) -> None:
    peer.script(silence)

    with pytest.raises(RequestTimeout, match=r"nothing came for 0\.2 s") as error:
        BeRayClient(peer.url, timeout=0.2, max_retries=0).list_tasks()

    assert error.value.was_sent


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


def test_a_call_that_may_be_repeated_is(peer: LoopbackServer, peer_client: BeRayClient, waits: list[float]) -> None:
    peer.script(drop, cut_body, reply(200, [{"id": 1}]))

    assert peer_client.list_tasks() == [{"id": 1}]
    assert len(waits) == 2


def test_a_call_that_must_not_be_repeated_is_not(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.login("a@b.c", "p")

    assert len(peer.received) == 1


def test_errors_of_a_real_call_can_be_pickled(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(404, {"detail": "没有"}), drop)

    for call in (lambda: peer_client.get_task(1), peer_client.logout):
        with pytest.raises(BeRayException) as error:
            call()
        pickled = pickle.dumps(error.value)
        assert str(pickle.loads(pickled)) == str(error.value)
        assert b"t0k" not in pickled


# Living with the client


def test_many_threads_share_a_client(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    def echo(exchange: Exchange) -> None:
        reply(200, {"path": exchange.path})(exchange)

    peer.always(echo)

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(peer_client.get_task, range(300)))

    assert [task["path"] for task in results] == [f"/api/v1/tasks/{n}" for n in range(300)]
    assert peer.connections <= 16


def test_calls_share_a_connection(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(reply(200, []))

    for _ in range(5):
        peer_client.list_tasks()

    assert peer.connections == 1


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


def test_a_session_of_the_callers_own_is_used_as_it_is_and_left_open(peer: LoopbackServer) -> None:
    peer.always(reply(200, []))

    with requests.Session() as session:
        session.headers["X-Own"] = "1"
        with BeRayClient(peer.url, session=session) as client:
            client.list_tasks()
        assert session.get(peer.url).ok

    assert peer.received[0].headers["x-own"] == "1"
    assert peer.connections == 1


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


def test_json_that_is_not_ascii_arrives_as_it_was(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, {"goal": "写诗 🌌"}))

    assert peer_client.create_task("写诗 🌌")["goal"] == "写诗 🌌"
    assert json.loads(peer.received[0].body)["goal"] == "写诗 🌌"
