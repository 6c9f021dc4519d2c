"""Every method of the specification: what it sends, what it returns, what it raises."""

import io
import json

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
    UnprocessableEntityError,
)
from tests.support.loopback import cut_body, drop, reply, silence

SESSION = {"access_token": "new-token", "token_type": "bearer", "expires_in": 60, "user": {"id": 1, "email": "a@b.c"}}

METHODS = [
    ("request_verification_code", ("a@b.c",), "POST", "/api/v1/auth/request-verification-code"),
    ("get_current_user", (), "GET", "/api/v1/users/me"),
    ("create_task", ("goal",), "POST", "/api/v1/tasks/"),
    ("start_task", (3,), "POST", "/api/v1/tasks/3/start"),
    ("list_tasks", (), "GET", "/api/v1/tasks/"),
    ("get_task", (3,), "GET", "/api/v1/tasks/3"),
    ("stop_task", (3,), "POST", "/api/v1/tasks/3/stop"),
    ("delete_task", (3,), "DELETE", "/api/v1/tasks/3"),
    ("list_files_tree", (3,), "GET", "/api/v1/tasks/3/files/tree"),
    ("delete_file", (3, "a"), "DELETE", "/api/v1/tasks/3/files/content"),
    ("upload_file", (3, "a", b"x"), "PUT", "/api/v1/tasks/3/files/content"),
]


@pytest.mark.parametrize(("name", "arguments", "method", "path"), METHODS)
def test_method_sends_its_call_and_returns_the_json(peer, peer_client, name, arguments, method, path):
    peer.script(reply(200, {"some": "值"}))

    result = getattr(peer_client, name)(*arguments)

    assert result == {"some": "值"}
    received = peer.received[0]
    assert (received.method, received.path) == (method, path)
    assert received.headers["authorization"] == "Bearer t0k"


@pytest.mark.parametrize(
    ("log_in", "path"),
    [
        (lambda client: client.register("a@b.c", "123456", "password"), "/api/v1/auth/register"),
        (lambda client: client.login("a@b.c", "password"), "/api/v1/auth/login"),
        (lambda client: client.login_with_form("a@b.c", "password"), "/api/v1/auth/token"),
    ],
)
def test_logging_in_keeps_the_token(peer, log_in, path):
    peer.script(reply(200, SESSION), reply(200, {}))
    with BeRayClient(peer.url) as client:
        assert log_in(client) == SESSION

        client.get_current_user()

    assert peer.received[0].path == path
    assert "authorization" not in peer.received[0].headers
    assert peer.received[1].headers["authorization"] == "Bearer new-token"


def test_logging_out_forgets_the_token(peer, peer_client):
    peer.script(reply(200, {"message": "已成功登出"}), reply(401, {"detail": "未登录"}))

    assert peer_client.logout()["message"] == "已成功登出"

    with pytest.raises(AuthenticationError):
        peer_client.get_current_user()
    assert "authorization" not in peer.received[1].headers


def test_logging_out_of_an_expired_session_forgets_the_token_too(peer, peer_client):
    peer.script(reply(401, {"detail": "expired"}))

    with pytest.raises(AuthenticationError):
        peer_client.logout()

    assert peer_client.token is None


def test_set_token_counts_from_the_next_call(peer, peer_client):
    peer.script(reply(200, {}), reply(200, {}))

    peer_client.set_token("other")
    peer_client.list_tasks()
    peer_client.set_token(None)
    peer_client.list_tasks()

    assert [received.headers.get("authorization") for received in peer.received] == ["Bearer other", None]


@pytest.mark.parametrize("token", ["", " x", "a\nb", "a\r\nX: y", "é", "a\0"])
def test_a_token_that_is_no_header_value_is_refused(token):
    with pytest.raises(ValueError, match="token"):
        BeRayClient("http://localhost", token=token)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (404, NotFoundError), (409, ConflictError),
     (422, UnprocessableEntityError), (400, APIError), (500, APIError)],
)  # fmt: skip
def test_refusals_are_typed_and_name_the_request(peer, peer_client, status, kind):
    peer.script(reply(status, {"detail": "为什么", "code": "c", "request_id": "r"}))

    with pytest.raises(kind) as error:
        peer_client.get_task(3)

    assert isinstance(error.value, BeRayException)
    assert (error.value.status_code, error.value.error_detail, error.value.code) == (status, "为什么", "c")
    assert (error.value.method, error.value.request_id) == ("GET", "r")
    assert isinstance(error.value.response, requests.Response)


def test_files_come_as_responses(peer, peer_client):
    peer.script(reply(200, b"bytes \xff"), reply(200, b"PK zip"))

    file = peer_client.get_file_content(1, "results/总结.txt")
    archive = peer_client.download_files_as_zip(1, ["results/", "a"])

    assert isinstance(file, requests.Response)
    assert (file.ok, file.content) == (True, b"bytes \xff")
    assert archive.content == b"PK zip"
    assert peer.received[0].query == {"path": ["results/总结.txt"]}
    assert peer.received[1].json == {"paths": ["results/", "a"]}


def test_a_file_that_is_not_there_raises(peer, peer_client):
    peer.script(reply(404, {"detail": "no"}), reply(404, {"detail": "no"}))

    with pytest.raises(NotFoundError):
        peer_client.get_file_content(1, "x")
    with pytest.raises(NotFoundError):
        peer_client.get_file_content(1, "x", stream=True)


def test_a_streamed_file_is_read_as_it_comes(peer, peer_client):
    peer.script(reply(200, b"x" * 100_000))

    with peer_client.get_file_content(1, "x", stream=True) as response:
        assert sum(len(chunk) for chunk in response.iter_content(4096)) == 100_000


@pytest.mark.parametrize("content", [b"ab\0", "中文", io.BytesIO(b"from a file"), b"x" * 700_000])
def test_upload_takes_bytes_text_and_files(peer, peer_client, content):
    expected = (
        content.encode() if isinstance(content, str) else content if isinstance(content, bytes) else b"from a file"
    )
    peer.script(reply(201, {"path": "a"}))

    peer_client.upload_file(1, "a", content, content_type="text/x-odd")

    assert peer.received[0].body == expected
    assert peer.received[0].headers["content-type"] == "text/x-odd"


def test_upload_of_something_else_is_refused(peer_client):
    with pytest.raises(TypeError, match="content"):
        peer_client.upload_file(1, "a", 7)


def test_tools_and_hold_are_sent_when_given(peer, peer_client):
    peer.always(reply(201, {"id": 1}))

    peer_client.create_task("g")
    peer_client.create_task("g", tools=["shell"], hold=True)

    assert peer.received[0].json == {"goal": "g", "tools": None}
    assert peer.received[1].json == {"goal": "g", "tools": ["shell"], "hold": True}
    keys = {received.headers["idempotency-key"] for received in peer.received}
    assert len(keys) == 2


def test_language_is_asked_for(peer):
    peer.script(reply(200, {}))
    with BeRayClient(peer.url, language="en") as client:
        client.get_info()

    assert peer.received[0].headers["accept-language"] == "en"


# Repeating


def test_a_passing_refusal_is_asked_again_after_the_servers_wish(peer, peer_client, waits):
    peer.script(reply(503, {"detail": "starting"}, {"Retry-After": "3"}), reply(429, {}), reply(200, []))

    assert peer_client.list_tasks() == []

    assert len(peer.received) == 3
    assert 3.0 <= waits[0] < 4.0


def test_repeating_ends(peer, peer_client):
    peer.always(reply(503, {"detail": "down"}))

    with pytest.raises(APIError) as error:
        peer_client.list_tasks()

    assert error.value.status_code == 503
    assert len(peer.received) == 3


def test_a_cut_answer_of_an_idempotent_call_is_asked_again(peer, peer_client):
    peer.script(drop, cut_body, reply(200, {"id": 3}))

    assert peer_client.get_task(3) == {"id": 3}


def test_a_task_is_not_made_twice_on_a_server_that_ignores_keys(peer, peer_client):
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.create_task("g")

    assert len(peer.received) == 1


def test_a_task_is_asked_for_again_with_the_same_key_where_keys_are_honoured(peer, peer_client):
    peer.script(reply(200, {}, {"Idempotency-Supported": "true"}), drop, reply(201, {"id": 5}))
    peer_client.get_info()

    assert peer_client.create_task("g")["id"] == 5

    assert peer.received[1].headers["idempotency-key"] == peer.received[2].headers["idempotency-key"]


def test_a_login_is_never_repeated_after_a_cut(peer, peer_client):
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.login("a@b.c", "password")

    assert len(peer.received) == 1


def test_a_deletion_whose_answer_was_lost_is_done(peer, peer_client):
    peer.script(drop, reply(404, {"detail": "gone", "code": "task_not_found"}))

    assert peer_client.delete_task(3)["message"]


def test_a_deletion_of_what_never_was_is_not_found(peer, peer_client):
    peer.script(reply(404, {"detail": "gone"}))

    with pytest.raises(NotFoundError):
        peer_client.delete_task(3)


def test_a_silent_server_does_not_hang_a_call(peer, waits):
    peer.always(silence)
    with BeRayClient(peer.url, timeout=0.2, max_retries=0) as client, pytest.raises(RequestTimeout) as error:
        client.list_tasks()

    assert "0.2" in str(error.value)


def test_an_unreachable_server_is_one_line(waits):
    with BeRayClient("http://127.0.0.1:1") as client, pytest.raises(ConnectionFailed) as error:
        client.list_tasks()

    assert "\n" not in str(error.value)
    assert "127.0.0.1:1" in str(error.value)
    assert not error.value.was_sent


def test_another_service_at_the_address_is_told(peer, peer_client):
    peer.script(reply(200, b"<html>hello</html>"))

    with pytest.raises(ProtocolError, match="base_url"):
        peer_client.list_tasks()


@pytest.mark.parametrize("base_url", ["", "localhost:8000", "ftp://x", "http://", "http://x/?a=1"])
def test_a_base_url_that_cannot_be_one_is_refused(base_url):
    with pytest.raises(ValueError, match="base_url"):
        BeRayClient(base_url)


def test_a_base_url_may_end_in_slashes_and_hold_a_path(peer):
    peer.always(reply(200, {}))
    with BeRayClient(f"{peer.url}/proxy//") as client:
        client.get_info()

    assert peer.received[0].path == "/proxy/api/v1/info"


def test_errors_with_a_list_as_detail_keep_it(peer, peer_client):
    detail = [{"loc": ["body", "goal"], "msg": "field required", "type": "missing"}]
    peer.script(reply(422, {"detail": detail}))

    with pytest.raises(UnprocessableEntityError) as error:
        peer_client.create_task("g")

    assert error.value.error_detail == detail
    assert "field required" in str(error.value)
    assert json.dumps(detail) not in str(error.value)
