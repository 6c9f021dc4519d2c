import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.protocol import calls
from beray.protocol.calls import Call


@pytest.mark.parametrize(
    ("call", "method", "target", "body"),
    [
        (
            calls.request_verification_code("a@b.c"),
            "POST",
            "/api/v1/auth/request-verification-code",
            {"email": "a@b.c"},
        ),
        (
            calls.register("a@b.c", "123456", "pass word"),
            "POST",
            "/api/v1/auth/register",
            {"email": "a@b.c", "verification_code": "123456", "password": "pass word"},
        ),
        (calls.login("a@b.c", "p"), "POST", "/api/v1/auth/login", {"email": "a@b.c", "password": "p"}),
        (calls.logout(), "POST", "/api/v1/auth/logout", None),
        (calls.get_current_user(), "GET", "/api/v1/users/me", None),
        (calls.create_task("写诗", tools=None), "POST", "/api/v1/tasks/", {"goal": "写诗", "tools": None}),
        (
            calls.create_task("g", tools=("shell",), hold=True),
            "POST",
            "/api/v1/tasks/",
            {"goal": "g", "tools": ["shell"], "hold": True},
        ),
        (calls.start_task(3), "POST", "/api/v1/tasks/3/start", None),
        (calls.list_tasks(), "GET", "/api/v1/tasks/", None),
        (calls.list_tasks(limit=5, before=9), "GET", "/api/v1/tasks/?limit=5&before=9", None),
        (calls.get_task(3), "GET", "/api/v1/tasks/3", None),
        (calls.get_task(3, events="tail:5"), "GET", "/api/v1/tasks/3?events=tail%3A5", None),
        (calls.stream_task(3, last_event_id=""), "GET", "/api/v1/tasks/3/stream", None),
        (calls.stop_task(3), "POST", "/api/v1/tasks/3/stop", None),
        (calls.delete_task(3), "DELETE", "/api/v1/tasks/3", None),
        (calls.list_files_tree(3, "."), "GET", "/api/v1/tasks/3/files/tree?path=.", None),
        (calls.get_file_content(3, "a/b c.txt"), "GET", "/api/v1/tasks/3/files/content?path=a%2Fb%20c.txt", None),
        (calls.delete_file(3, "a"), "DELETE", "/api/v1/tasks/3/files/content?path=a", None),
        (calls.download_files_as_zip(3, ["a", "b/"]), "POST", "/api/v1/tasks/3/files/download", {"paths": ["a", "b/"]}),
        (calls.download_files_as_zip(3, ()), "POST", "/api/v1/tasks/3/files/download", {"paths": []}),
        (calls.get_health(), "GET", "/health", None),
        (calls.get_ready(), "GET", "/ready", None),
        (calls.get_info(), "GET", "/api/v1/info", None),
    ],
)
def test_each_operation_is_what_the_contract_says(call: Call, method: str, target: str, body: object) -> None:
    assert (call.method, call.target) == (method, target)
    if body is None:
        assert call.body is None
    else:
        assert isinstance(call.body, bytes)
        assert json.loads(call.body) == body
        assert call.headers["Content-Type"] == "application/json"


def test_the_login_form_is_an_oauth2_password_grant() -> None:
    call = calls.login_with_form("a+b@c.d", "p&=密 码")

    assert (call.method, call.target) == ("POST", "/api/v1/auth/token")
    assert call.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert isinstance(call.body, bytes)
    assert parse_qs(call.body.decode()) == {
        "grant_type": ["password"],
        "username": ["a+b@c.d"],
        "password": ["p&=密 码"],
    }


def test_an_upload_sends_the_bytes_as_they_are() -> None:
    call = calls.upload_file(3, "图/图.png", b"\0\xff", content_type="image/png")

    assert (call.method, call.body, call.headers) == ("PUT", b"\0\xff", {"Content-Type": "image/png"})
    assert call.target == "/api/v1/tasks/3/files/content?path=%E5%9B%BE%2F%E5%9B%BE.png"


def test_a_stream_is_resumed_by_the_standard_header() -> None:
    assert calls.stream_task(3, last_event_id="17").headers["Last-Event-ID"] == "17"
    assert "Last-Event-ID" not in calls.stream_task(3, last_event_id="").headers


def test_a_key_makes_a_creation_safe_to_repeat() -> None:
    with_key = calls.create_task("g", tools=None, idempotency_key="k")

    assert with_key.headers["Idempotency-Key"] == "k"
    assert with_key.has_key
    assert not calls.create_task("g", tools=None).has_key


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_path_arrives_as_it_was_and_leaves_the_url_alone(path: str) -> None:
    parts = urlsplit("http://host" + calls.get_file_content(3, path).target)

    assert parts.path == "/api/v1/tasks/3/files/content"
    assert parts.fragment == ""
    assert parse_qs(parts.query, keep_blank_values=True, strict_parsing=True, encoding="utf-8") == {"path": [path]}


@pytest.mark.parametrize("task_id", ["../users/me", "3", 3.0, None])
def test_a_task_id_that_is_no_integer_is_refused_before_anything_is_sent(task_id: object) -> None:
    with pytest.raises(TypeError):
        calls.get_task(task_id)  # type: ignore[arg-type]
