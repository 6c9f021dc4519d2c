"""Changing a password and deleting an account over HTTP, against a real server."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from beray.server.auth.service import LOCAL_EMAIL
from beray.server.auth.tokens import hash_token
from tests.server.auth.auth_server import EMAIL, NEW_PASSWORD, PASSWORD, AuthServer, CountingHasher, run_auth_server
from tests.support.waiting import wait_until

OTHER = "other@example.com"


def change(server: AuthServer, token: str, current: str = PASSWORD, new: str = NEW_PASSWORD) -> requests.Response:
    return server.bearing(token, "PUT", "/users/me/password", {"current_password": current, "new_password": new})


def delete(server: AuthServer, token: str, password: str = PASSWORD) -> requests.Response:
    return server.bearing(token, "DELETE", "/users/me", {"password": password})


def code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def session(server) -> str:
    return server.register(EMAIL)


# the password


def test_another_password_ends_the_other_sessions_and_keeps_api_tokens(server, session):
    there = server.login(EMAIL).json()["access_token"]
    token = server.make_token(session)["token"]
    assert server.me(there).status_code == 200

    answer = change(server, session)

    assert answer.status_code == 200
    assert "API 令牌仍然有效" in answer.json()["message"]
    assert [server.me(each).status_code for each in (session, there, token)] == [200, 401, 200]
    assert [server.login(EMAIL, password).status_code for password in (PASSWORD, NEW_PASSWORD)] == [401, 200]
    assert len(server.audited("password.changed")) == 1


def test_wrong_current_password_changes_nothing_and_costs_one_check(server, session):
    server.hasher.work.clear()

    answer = change(server, session, current="not_the_password")

    assert code(answer) == (403, "wrong_password")
    assert server.hasher.work == ["verify"]
    assert server.login(EMAIL).status_code == 200
    assert len(server.audited("password.change.failed")) == 1
    assert server.audited("password.changed") == []


@pytest.mark.parametrize(
    ("current", "new", "field"),
    [
        (PASSWORD, "short", "new_password"),
        (PASSWORD, "x" * 257, "new_password"),
        ("x" * 257, PASSWORD, "current_password"),
    ],
)
def test_password_of_the_wrong_length_is_told_by_its_field(server, session, current, new, field):
    server.hasher.work.clear()

    answer = change(server, session, current, new)

    assert code(answer) == (422, "invalid_password")
    assert [item["loc"] for item in answer.json()["errors"]] == [["body", field]]
    assert server.hasher.work == []


def test_stolen_session_can_guess_no_more_than_a_stranger(limited_server):
    """Both count together; a right password gives its try back."""
    session = limited_server.register(EMAIL)
    assert [change(limited_server, session, new=PASSWORD).status_code for _ in range(12)] == [200] * 12

    answers = [change(limited_server, session, current="a wrong one") for _ in range(5)]
    answers += [delete(limited_server, session, "a wrong one") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [403] * 10
    refused = [change(limited_server, session), delete(limited_server, session), limited_server.login(EMAIL)]
    assert [code(answer) for answer in refused] == [(429, "rate_limited")] * 3
    assert limited_server.audited("rate.refused") == ["login per both"]
    assert limited_server.me(session).status_code == 200


class HeldHasher(CountingHasher):
    """Verifies a password once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()
        self.go.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.began.set()
        assert self.go.wait(30)
        return super().verify(hash, password)


@pytest.mark.parametrize("act", [change, delete])
def test_password_that_is_reset_while_it_is_checked_does_nothing(tmp_path, act):
    hasher = HeldHasher()
    with run_auth_server(tmp_path, hasher=hasher, rate_limits=False) as server, ThreadPoolExecutor(1) as threads:
        session = server.register(EMAIL)
        code_to_reset = server.reset_code_for(EMAIL)
        hasher.began.clear()
        hasher.go.clear()
        acting = threads.submit(act, server, session)
        assert hasher.began.wait(30)

        assert server.reset(code_to_reset, password="the_owners_choice").status_code == 200
        hasher.go.set()

        assert code(acting.result(30)) == (403, "wrong_password")
        assert server.login(EMAIL, "the_owners_choice").status_code == 200


@pytest.mark.parametrize("act", [change, delete])
def test_session_that_ends_while_its_password_is_checked_does_nothing(tmp_path, act):
    hasher = HeldHasher()
    with run_auth_server(tmp_path, hasher=hasher, rate_limits=False) as server, ThreadPoolExecutor(1) as threads:
        session = server.register(EMAIL)
        hasher.began.clear()
        hasher.go.clear()
        acting = threads.submit(act, server, session)
        assert hasher.began.wait(30)
        assert server.logout(session).status_code == 200
        hasher.go.set()

        assert code(acting.result(30)) == (401, "not_authenticated")
        assert server.login(EMAIL).status_code == 200


# the account


def test_deleted_account_is_nobodys_and_its_address_free(server, session):
    there, stranger = server.login(EMAIL).json()["access_token"], server.register(OTHER)
    token = server.make_token(session)["token"]
    assert [server.me(each).status_code for each in (session, there, token)] == [200] * 3

    answer = delete(server, session)

    assert answer.status_code == 200
    assert "该邮箱现在可以重新注册" in answer.json()["message"]
    assert [server.me(each).status_code for each in (session, there, token, stranger)] == [401, 401, 401, 200]
    assert server.login(EMAIL).status_code == 401
    again = server.me(server.register(EMAIL)).json()
    assert again["id"] == 3
    assert server.audited("account.deleted") == [None]
    assert server.execute("SELECT who FROM audit WHERE action = 'account.deleted'") == EMAIL


def test_wrong_password_deletes_nothing(server, session):
    assert code(delete(server, session, "not_the_password")) == (403, "wrong_password")

    assert server.me(session).status_code == 200
    assert len(server.audited("account.delete.failed")) == 1


def test_code_that_was_asked_for_before_makes_no_account_of_a_deleted_one(server, session):
    code_to_reset = server.reset_code_for(EMAIL)
    delete(server, session)

    assert code(server.reset(code_to_reset)) == (400, "invalid_verification_code")


def test_whatever_the_account_had_is_forgotten(server, session):
    server.make_token(session)
    for statement in (
        "INSERT INTO webhook (user_id, salt, made_at) VALUES (1, x'00', 0)",
        "INSERT INTO idempotency_key (user_id, key, body_hash, answer, created_at) VALUES (1, 'k', x'00', x'00', 0)",
        "INSERT INTO task (user_id, goal, status, created_at, updated_at, usage) VALUES (1, '', 'running', 0, 0, '{}')",
        """INSERT INTO webhook_delivery (user_id, task_id, message_id, body, created_at, due_at)
        VALUES (1, 1, 'm', x'00', 0, 0)""",
        _used(day=0),
        _used(day=20_833),  # today: what the server's limits of a day count
    ):
        server.execute(statement)

    delete(server, session)

    tables = ("session", "api_token", "webhook", "webhook_delivery", "idempotency_key", "verification_code")
    assert {table: server.execute(f"SELECT count(*) FROM {table}") for table in tables} == dict.fromkeys(tables, 0)
    assert server.execute("SELECT min(day) FROM usage_day") == 20_833
    assert server.execute("SELECT email FROM user_account") == "deleted 1"
    assert server.execute("SELECT count(*) FROM task WHERE deleted_at IS NOT NULL AND stop_requested") == 1


def _used(*, day: int) -> str:
    counted = "requests, tool_calls, input_tokens, cached_input_tokens, output_tokens, cost_usd, unpriced, elapsed_ms"
    return (
        f"INSERT INTO usage_day (task_id, day, user_id, {counted}, estimated_tokens, estimated_cost_usd)"
        f" VALUES (1, {day}, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)"
    )


@pytest.mark.parametrize(
    ("admins", "others", "is_let_go"),
    [((1,), True, False), ((1,), False, True), ((1, 2), True, True), ((2,), True, True)],
)
def test_only_administrator_goes_last(server, session, admins, others, is_let_go):
    if others:
        server.register(OTHER)
    for user_id in admins:
        server.execute("UPDATE user_account SET is_admin = true WHERE id = :id", id=user_id)

    answer = delete(server, session)

    if is_let_go:
        assert answer.status_code == 200, answer.text
        return
    assert code(answer) == (409, "last_admin")
    assert "beray admin users --promote" in answer.json()["detail"]
    assert server.me(session).status_code == 200


def test_refused_deletion_with_the_right_password_is_no_wrong_try(limited_server):
    session = limited_server.register(EMAIL)
    limited_server.execute("INSERT INTO user_account (email, created_at) VALUES ('b@example.com', 0)")
    limited_server.execute("UPDATE user_account SET is_admin = true WHERE id = 1")

    assert [delete(limited_server, session).status_code for _ in range(11)] == [409] * 11

    assert limited_server.login(EMAIL).status_code == 200


@pytest.mark.parametrize("act", [change, delete])
def test_servers_own_user_has_no_password_to_prove_anything_by(server, act):
    server.execute("INSERT INTO user_account (email, created_at) VALUES (:email, 0)", email=LOCAL_EMAIL)
    server.execute(
        "INSERT INTO session (token_hash, user_id, created_at, expires_at) VALUES (:hash, 1, 0, :end)",
        hash=hash_token(token := "br_" + "x" * 43),
        end=2**60,
    )
    server.hasher.work.clear()

    assert code(act(server, token)) == (409, "account_without_password")

    assert server.hasher.work == []
    assert server.me(token).status_code == 200


@pytest.mark.parametrize("act", [change, delete])
def test_api_token_is_not_enough(server, session, act):
    token = server.make_token(session)["token"]

    assert code(act(server, token)) == (403, "login_needed")


def test_old_session_row_without_an_origin_is_shown_and_noted(server, session):
    """As versions before made them."""
    server.execute("UPDATE session SET user_agent = NULL, address = NULL, last_used_at = NULL")

    def shown() -> dict:
        return server.bearing(session, "GET", "/users/me/sessions").json()[0]

    assert (shown()["user_agent"], shown()["address"]) == (None, None)
    wait_until(lambda: shown()["last_used_at"] is not None, what="its first use")
