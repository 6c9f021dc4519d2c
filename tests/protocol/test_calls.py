"""Each operation as it goes over the wire (WIRE.md)."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.protocol import calls

JSON_CALLS = [
    (calls.request_verification_code("a@b.c"), "POST", "/auth/request-verification-code", {"email": "a@b.c"}),
    (
        calls.register("a@b.c", "123456", "pw"),
        "POST",
        "/auth/register",
        {"email": "a@b.c", "verification_code": "123456", "password": "pw"},
    ),
    (calls.login("a@b.c", "pw"), "POST", "/auth/login", {"email": "a@b.c", "password": "pw"}),
    (
        calls.request_password_reset("a@b.c"),
        "POST",
        "/auth/request-verification-code",
        {"email": "a@b.c", "purpose": "reset"},
    ),
    (
        calls.reset_password("a@b.c", "123456", "pw"),
        "POST",
        "/auth/reset-password",
        {"email": "a@b.c", "verification_code": "123456", "password": "pw"},
    ),
    (calls.create_token("ci"), "POST", "/users/me/tokens", {"name": "ci", "expires_in": None}),
    (calls.create_token("ci", expires_in=60), "POST", "/users/me/tokens", {"name": "ci", "expires_in": 60}),
    (calls.create_task("目标", tools=None), "POST", "/tasks/", {"goal": "目标", "tools": None}),
    (
        calls.create_task("g", tools=("shell",), hold=True),
        "POST",
        "/tasks/",
        {"goal": "g", "tools": ["shell"], "hold": True},
    ),
    (
        calls.create_task("g", tools=None, model="openai:x"),
        "POST",
        "/tasks/",
        {"goal": "g", "tools": None, "model": "openai:x"},
    ),
    (
        calls.create_task("g", tools=None, webhook_url="https://h.example/"),
        "POST",
        "/tasks/",
        {"goal": "g", "tools": None, "webhook_url": "https://h.example/"},
    ),
    (calls.set_webhook("https://h.example/"), "PUT", "/users/me/webhook", {"url": "https://h.example/"}),
    (calls.set_webhook(None, rotate_secret=True), "PUT", "/users/me/webhook", {"url": None, "rotate_secret": True}),
    (calls.check_model(), "POST", "/model/check", {"model": None}),
    (calls.check_model("openai:x"), "POST", "/model/check", {"model": "openai:x"}),
    (calls.send_message(7, "go on"), "POST", "/tasks/7/messages", {"content": "go on"}),
    (
        calls.send_message(7, "red", question_id="q1"),
        "POST",
        "/tasks/7/messages",
        {"content": "red", "question_id": "q1"},
    ),
    (calls.download_files_as_zip(1, ["a/", "b"]), "POST", "/tasks/1/files/download", {"paths": ["a/", "b"]}),
]
PLAIN_CALLS = [
    (calls.logout(), "POST", "/auth/logout"),
    (calls.get_current_user(), "GET", "/users/me"),
    (calls.list_tokens(), "GET", "/users/me/tokens"),
    (calls.delete_token(7), "DELETE", "/users/me/tokens/7"),
    (calls.list_tasks(), "GET", "/tasks/"),
    (calls.list_tasks(limit=2, before=9), "GET", "/tasks/?limit=2&before=9"),
    (calls.get_task(7), "GET", "/tasks/7"),
    (calls.get_task(7, events="tail:3"), "GET", "/tasks/7?events=tail%3A3"),
    (calls.start_task(7), "POST", "/tasks/7/start"),
    (calls.stop_task(7), "POST", "/tasks/7/stop"),
    (calls.delete_task(7), "DELETE", "/tasks/7"),
    (calls.stream_task(7, last_event_id=""), "GET", "/tasks/7/stream"),
    (calls.list_files_tree(7, "."), "GET", "/tasks/7/files/tree?path=."),
    (
        calls.get_file_content(7, "a b/中&c?#%.txt"),
        "GET",
        "/tasks/7/files/content?path=a%20b%2F%E4%B8%AD%26c%3F%23%25.txt",
    ),
    (calls.delete_file(7, "x"), "DELETE", "/tasks/7/files/content?path=x"),
    (calls.get_info(), "GET", "/info"),
    (calls.get_usage(), "GET", "/users/me/usage"),
    (calls.get_webhook(), "GET", "/users/me/webhook"),
]


@pytest.mark.parametrize(("call", "method", "path", "body"), JSON_CALLS)
def test_json_calls(call, method, path, body):
    assert (call.method, call.target) == (method, "/api/v1" + path)
    assert json.loads(call.body) == body
    assert call.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("call", "method", "target"), PLAIN_CALLS)
def test_calls_without_a_body(call, method, target):
    assert (call.method, call.target, call.body) == (method, "/api/v1" + target, None)


def test_secret_is_changed_once():
    """A repetition would put the secret that the first answer has shown, and nobody has read, before the old one."""
    assert calls.set_webhook("https://h.example/").is_idempotent
    assert not calls.set_webhook("https://h.example/", rotate_secret=True).is_idempotent


def test_form_login_is_the_oauth2_password_grant():
    call = calls.login_with_form("a+b@c.d", "p&w=ü")

    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(call.body.decode()) == {"grant_type": ["password"], "username": ["a+b@c.d"], "password": ["p&w=ü"]}


def test_upload_carries_path_type_and_raw_body():
    call = calls.upload_file(3, "src/a.py", b"x", content_type="text/x-python")

    assert (call.method, call.target) == ("PUT", "/api/v1/tasks/3/files/content?path=src%2Fa.py")
    assert (call.body, call.headers["Content-Type"]) == (b"x", "text/x-python")


def test_an_id_that_is_none_is_refused():
    """Above all a text, which could name another path."""
    for call in (calls.get_task, calls.stop_task, calls.delete_token):
        with pytest.raises(TypeError, match=r"must be an integer.*'\.\./users'"):
            call("../users")


def test_stream_resumes_by_last_event_id():
    assert calls.stream_task(1, last_event_id="17").headers["Last-Event-ID"] == "17"
    assert "Last-Event-ID" not in calls.stream_task(1, last_event_id="").headers


def test_health_and_ready_are_at_the_root():
    assert calls.get_health().target == "/health"
    assert calls.get_ready().target == "/ready"
    assert 503 in calls.get_ready().accepted


@pytest.mark.parametrize(
    "make", [calls.get_task, calls.stop_task, calls.delete_task, calls.start_task, calls.delete_token]
)
def test_a_text_never_becomes_a_path(make):
    with pytest.raises(TypeError):
        make("../users/me")


def test_what_could_do_its_work_twice_is_not_called_idempotent():
    once = [call for call, *_ in [*JSON_CALLS, *PLAIN_CALLS] if not call.is_idempotent]

    assert {call.path.removeprefix("/api/v1") for call in once} == {
        "/auth/request-verification-code",
        "/auth/register",
        "/auth/login",
        "/auth/logout",
        "/auth/reset-password",
        "/users/me/tokens",
        "/tasks/",
        "/tasks/7/start",
        "/tasks/7/messages",
        "/users/me/webhook",
    }
    assert calls.create_task("g", tools=None, idempotency_key="k").has_key


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_path_arrives_as_it_was_and_leaves_the_url_alone(path):
    parts = urlsplit("http://host" + calls.get_file_content(3, path).target)

    assert (parts.path, parts.fragment) == ("/api/v1/tasks/3/files/content", "")
    assert parse_qs(parts.query, keep_blank_values=True, strict_parsing=True) == {"path": [path]}
