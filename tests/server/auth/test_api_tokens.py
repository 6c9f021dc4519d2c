"""API tokens over HTTP, against a real server."""

import re

import pytest

from beray.server.auth import api_tokens
from tests.server.auth.auth_server import EMAIL
from tests.support.waiting import wait_until

DAY_SECONDS = 86_400
NOW = "2027-01-15T08:00:00.000Z"


@pytest.fixture
def session(server) -> str:
    return server.register(EMAIL)


def listed(server, session) -> list:
    answer = server.bearing(session, "GET", "/users/me/tokens")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_token_is_shown_once_and_works_like_a_session(server, session):
    made = server.make_token(session, "nightly build", expires_in=DAY_SECONDS)

    shown = {
        "id": 1,
        "name": "nightly build",
        "created_at": NOW,
        "expires_at": "2027-01-16T08:00:00.000Z",
        "last_used_at": None,
    }
    assert made == {**shown, "token": made["token"]}
    assert re.fullmatch(r"beray_[A-Za-z0-9_-]{43}", made["token"])
    assert listed(server, session) == [shown]
    assert server.me(made["token"]).json() == server.me(session).json()


def test_database_holds_no_token(server, session):
    token = server.make_token(session)["token"]

    files = [path.read_bytes() for path in server.folder.glob("beray.db*")]

    assert not any(token.removeprefix("beray_").encode() in content for content in files)


def test_token_without_an_end_outlives_its_session(server, session):
    token = server.make_token(session)["token"]
    server.logout(session)

    server.clock.advance(days=3650)

    assert server.me(token).status_code == 200


def test_token_ends_in_its_time(server, session):
    token = server.make_token(session, expires_in=60)["token"]
    server.clock.advance(minutes=0.99)
    assert server.me(token).status_code == 200

    server.clock.advance(minutes=0.01)

    assert server.me(token).status_code == 401
    assert [entry["id"] for entry in listed(server, session)] == [1], "so that its owner sees what has happened"
    server.make_token(session)
    assert [entry["id"] for entry in listed(server, session)] == [2]


def test_deleted_token_is_dead_and_the_others_live(server, session):
    first, second = (server.make_token(session, name) for name in ("first", "second"))

    answer = server.bearing(session, "DELETE", f"/users/me/tokens/{first['id']}")

    assert (answer.status_code, answer.json()) == (200, {"message": "API 令牌 1 已删除。"})
    assert server.me(first["token"]).status_code == 401
    assert server.me(second["token"]).status_code == 200
    assert [entry["name"] for entry in listed(server, session)] == ["second"]
    assert server.audited("token.created") == ["1 first", "2 second"]
    assert server.audited("token.deleted") == ["1 first"]


def test_last_use_is_known_to_the_hour_and_written_once_in_it(server, session):
    token = server.make_token(session)["token"]

    def last_used() -> str:
        return listed(server, session)[0]["last_used_at"]

    server.me(token)
    wait_until(lambda: last_used() == NOW, what="the first use")
    server.clock.advance(minutes=59)
    assert server.me(token).status_code == 200
    server.clock.advance(minutes=1)
    server.me(token)
    wait_until(lambda: last_used() != NOW, what="the next hour's use")

    assert last_used() == "2027-01-15T09:00:00.000Z"


@pytest.mark.parametrize(
    ("body", "field", "kind"),
    [
        ({}, "name", "missing"),
        ({"name": ""}, "name", "blank"),
        ({"name": " \t\n"}, "name", "blank"),
        ({"name": "x" * 101}, "name", "string_too_long"),
        ({"name": "a\0b"}, "name", "nul"),
        ({"name": "\ud800"}, "name", "string_unicode"),
        ({"name": 5}, "name", "string_type"),
        ({"name": "x", "expires_in": 59}, "expires_in", "greater_than_equal"),
        ({"name": "x", "expires_in": 0}, "expires_in", "greater_than_equal"),
        ({"name": "x", "expires_in": -1}, "expires_in", "greater_than_equal"),
        ({"name": "x", "expires_in": api_tokens.MOST_SECONDS + 1}, "expires_in", "less_than_equal"),
        ({"name": "x", "expires_in": 10**400}, "expires_in", "less_than_equal"),
        ({"name": "x", "expires_in": 60.5}, "expires_in", "int_type"),
        ({"name": "x", "expires_in": True}, "expires_in", "int_type"),
        ({"name": "x", "expires_in": "60"}, "expires_in", "int_type"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_field(server, session, body, field, kind):
    answer = server.bearing(session, "POST", "/users/me/tokens", body)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert [(item["loc"][-1], item["type"]) for item in answer.json()["errors"]] == [(field, kind)]


@pytest.mark.parametrize("expires_in", [60, 60.0, api_tokens.MOST_SECONDS, None])
def test_what_is_within_bounds_is_taken(server, session, expires_in):
    made = server.make_token(session, "名" * 100, expires_in=expires_in)

    assert made["name"] == "名" * 100
    assert (made["expires_at"] is None) is (expires_in is None)


def test_tokens_of_a_user_are_bounded(server, session, monkeypatch):
    monkeypatch.setattr(api_tokens, "MOST_TOKENS", 2)
    other = server.register("other@example.com")
    for name in ("a", "b"):
        server.make_token(session, name)

    refused = server.bearing(session, "POST", "/users/me/tokens", {"name": "c"})

    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_api_tokens")
    assert len(listed(server, session)) == 2
    server.make_token(other)
    server.bearing(session, "DELETE", "/users/me/tokens/1")
    server.make_token(session, "c")


def test_logging_out_with_a_token_ends_that_token_alone(server, session):
    here, there = (server.make_token(session, name)["token"] for name in ("here", "there"))

    assert server.logout(here).status_code == 200

    assert [server.me(token).status_code for token in (here, there, session)] == [401, 200, 200]
    assert server.logout(here).status_code == 401
    assert server.audited("token.deleted") == ["1 here"]
