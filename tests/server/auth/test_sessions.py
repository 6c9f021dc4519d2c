"""A user's sessions over HTTP, against a real server: shown, and ended one by one or all but this one."""

import pytest

from beray.server.auth.sessions import shown_agent
from tests.server.auth.auth_server import EMAIL
from tests.support.waiting import wait_until

NOW = "2027-01-15T08:00:00.000Z"
UNKNOWN = [999, 0, -1, 2**63, 2**200]


def listed(server, token) -> list:
    answer = server.bearing(token, "GET", "/users/me/sessions")
    assert answer.status_code == 200, answer.text
    return answer.json()


def log_in(server, email: str = EMAIL, agent: str = "Firefox/150") -> str:
    answer = server.login(email, headers={"User-Agent": agent})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture
def here(server) -> str:
    return server.register(EMAIL)


def test_sessions_are_shown_newest_first_with_where_they_began(server, here):
    server.clock.advance(minutes=1)
    there = log_in(server)
    server.logout(log_in(server))

    newest, oldest = listed(server, there)

    assert newest == {
        "id": 2,
        "created_at": "2027-01-15T08:01:00.000Z",
        "expires_at": "2027-02-14T08:01:00.000Z",
        "last_used_at": "2027-01-15T08:01:00.000Z",
        "user_agent": "Firefox/150",
        "address": "127.0.0.1",
        "is_current": True,
    }
    assert (oldest["id"], oldest["is_current"]) == (1, False)
    assert oldest["user_agent"].startswith("python-requests/")
    assert [session["is_current"] for session in listed(server, here)] == [False, True]


def test_session_that_has_run_out_is_not_shown(server, here):
    server.clock.advance(days=30)

    assert [session["id"] for session in listed(server, log_in(server))] == [2]


def test_last_use_of_a_session_is_known_to_the_hour(server, here):
    def last_used() -> str:
        return listed(server, here)[0]["last_used_at"]

    server.clock.advance(minutes=59)
    assert last_used() == NOW
    server.clock.advance(minutes=1)
    wait_until(lambda: last_used() != NOW, what="the next hour's use")

    assert last_used() == "2027-01-15T09:00:00.000Z"


def test_ended_session_is_dead_and_the_others_live(server, here):
    there, elsewhere = log_in(server), log_in(server)
    assert server.me(there).status_code == 200

    answer = server.bearing(here, "DELETE", "/users/me/sessions/2")

    assert (answer.status_code, answer.json()) == (200, {"message": "会话 2 已结束。"})
    assert [server.me(token).status_code for token in (here, there, elsewhere)] == [200, 401, 200]
    assert [session["id"] for session in listed(server, here)] == [3, 1]
    assert server.audited("session.ended") == ["2"]


def test_session_can_end_itself(server, here):
    assert server.bearing(here, "DELETE", "/users/me/sessions/1").status_code == 200

    assert server.me(here).status_code == 401


def test_where_a_session_began_is_forgotten_at_logout(server, here):
    server.logout(log_in(server))

    kept = "SELECT count(*) FROM session WHERE user_agent IS NOT NULL OR address IS NOT NULL"
    assert server.execute(kept) == 1, "only the one that lives"


def test_session_of_somebody_else_and_an_unknown_one_are_not_found(server, here):
    other = server.register("other@example.com")

    answers = [server.bearing(here, "DELETE", f"/users/me/sessions/{session_id}") for session_id in (2, *UNKNOWN)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "session_not_found")}
    assert server.me(other).status_code == 200
    assert server.audited("session.ended") == []


def test_all_others_are_ended_and_counted(server, here):
    others = [log_in(server), log_in(server)]
    token, stranger = server.make_token(here)["token"], server.register("other@example.com")

    answer = server.bearing(here, "DELETE", "/users/me/sessions")

    assert (answer.status_code, answer.json()) == (200, {"message": "其他会话均已结束，共 2 个。", "ended": 2})
    assert [server.me(each).status_code for each in (*others, here, token, stranger)] == [401, 401, 200, 200, 200]
    assert server.bearing(here, "DELETE", "/users/me/sessions").json()["ended"] == 0
    assert server.audited("session.ended") == ["all others: 2"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/users/me/sessions"), ("DELETE", "/users/me/sessions"), ("DELETE", "/users/me/sessions/1")],
)
def test_api_token_has_nothing_to_do_with_sessions(server, here, method, path):
    token = server.make_token(here)["token"]

    answer = server.bearing(token, method, path)

    assert (answer.status_code, answer.json()["code"]) == (403, "login_needed")
    assert server.me(here).status_code == 200


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (None, None),
        (b"", None),
        (b" \t\x07 ", None),
        (b"curl/8.5", "curl/8.5"),
        ("小程序 1".encode(), "小程序 1"),
        (b"a\x1b[31m\x00b\xff", "a[31mb\ufffd"),
        ("to\u202eagent\u200b".encode(), "toagent"),
        (b"x" * 1000, "x" * 300),
    ],
)
def test_program_is_shown_short_and_printable(sent, shown):
    assert shown_agent(sent) == shown
