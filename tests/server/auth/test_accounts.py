"""Accounts over HTTP, against a real server."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from argon2 import PasswordHasher

from beray.server.auth.mailer import Mail, MailNotSent
from tests.server.auth.auth_server import PASSWORD, register_with, run_auth_server, wrong

EMAIL = "new_user@example.com"


def test_mailbox_owner_registers_and_is_logged_in(server):
    """Code, register, current user: what a client sees of it (WIRE.md, "Accounts")."""
    answer = server.request_code(EMAIL)
    assert (answer.status_code, answer.json()) == (200, {"message": "验证码已发送到您的邮箱。请查收。"})

    body = {"email": EMAIL, "verification_code": server.last_code(EMAIL), "password": PASSWORD}
    session = server.post("/auth/register", body)

    assert session.status_code == 201
    user = {"id": 1, "email": EMAIL, "created_at": "2027-01-15T08:00:00.000Z", "is_admin": False}
    assert session.json() == {
        "access_token": session.json()["access_token"],
        "token_type": "bearer",
        "expires_in": 30 * 86_400,
        "user": user,
    }
    assert server.me(session.json()["access_token"]).json() == user


def test_login_and_form_login_give_sessions_of_their_own(server):
    registered = server.register(EMAIL)

    by_json = server.login(EMAIL)
    by_form = requests.post(f"{server.url}/auth/token", data={"username": EMAIL, "password": PASSWORD}, timeout=30)

    assert (by_json.status_code, by_form.status_code) == (200, 200)
    tokens = {registered, by_json.json()["access_token"], by_form.json()["access_token"]}
    assert len(tokens) == 3
    assert {server.me(token).json()["email"] for token in tokens} == {EMAIL}


@pytest.mark.parametrize(("grant_type", "status_code"), [("password", 200), ("client_credentials", 400)])
def test_form_login_takes_the_password_grant_only(server, grant_type, status_code):
    server.register(EMAIL)

    form = {"grant_type": grant_type, "username": EMAIL, "password": PASSWORD, "scope": "", "client_id": "x"}
    answer = requests.post(f"{server.url}/auth/token", data=form, timeout=30)

    assert answer.status_code == status_code


def test_database_holds_neither_token_nor_code_nor_password(server):
    code = server.code_for(EMAIL)
    body = {"email": EMAIL, "verification_code": code, "password": PASSWORD}
    token = server.post("/auth/register", body).json()["access_token"]
    pending = server.code_for("other@example.com")

    files = [path.read_bytes() for path in server.folder.glob("beray.db*")]

    for secret in (token, token.removeprefix("br_"), PASSWORD, pending):
        assert not any(secret.encode() in content for content in files)


def test_login_with_outdated_hash_stores_a_new_one(server):
    server.register(EMAIL)
    old = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    server.execute("UPDATE user_account SET password_hash = :old", old=old)
    server.hasher.work.clear()

    assert server.login(EMAIL).status_code == 200
    assert server.hasher.work == ["verify", "hash"]
    assert server.login(EMAIL).status_code == 200
    assert server.hasher.work == ["verify", "hash", "verify"]


def test_mail_is_in_the_language_of_the_request(server):
    server.request_code("zh@example.com")
    server.request_code("en@example.com", headers={"Accept-Language": "en"})

    assert "您的 BeRay 验证码是" in server.mailbox("zh@example.com")[0]
    assert "your BeRay verification code is" in server.mailbox("en@example.com")[0]


def test_code_without_smtp_is_announced_and_kept_for_the_owner_alone(server):
    code = server.code_for(EMAIL)

    mails = list((server.folder / "outbox").iterdir())

    assert len(mails) == 1
    assert stat.S_IMODE(mails[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(mails[0].parent.stat().st_mode) == 0o700
    assert server.announced == [f"{EMAIL} 的验证码：{code}  ({mails[0]})"]


def test_code_is_right_on_the_fifth_try(server):
    code = server.code_for(EMAIL)

    for _ in range(4):
        register_with(server, wrong(code))

    assert register_with(server, code).status_code == 201


def test_wrong_guesses_cost_no_hash_work(server):
    code = server.code_for(EMAIL)

    for _ in range(6):
        register_with(server, wrong(code))

    assert server.hasher.work == []


def test_two_registrations_with_one_code_at_once_make_one_account(server):
    code = server.code_for(EMAIL)

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: register_with(server, code).status_code, range(2)))

    assert answers.count(201) == 1
    assert set(answers) <= {201, 400, 409}


def test_only_the_newest_code_counts(server):
    old = server.code_for(EMAIL)
    new = server.code_for(EMAIL)
    while new == old:  # one in a million
        new = server.code_for(EMAIL)

    assert register_with(server, old).status_code == 400
    assert register_with(server, new).status_code == 201


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "１２３４５６", "0" * 10_000, "\x00", "\ud800"])
def test_malformed_code_is_refused(server, code):
    server.code_for(EMAIL)

    assert register_with(server, code).status_code in {400, 422}


def test_refused_address_is_named_with_its_field(server):
    body = server.request_code("no-at-sign").json()

    assert body["code"] == "invalid_email"
    assert body["errors"] == [
        {"loc": ["body", "email"], "msg": "“no-at-sign”不是有效的邮箱地址。", "type": "invalid_email"}
    ]


@pytest.mark.parametrize(("length", "status_code"), [(7, 422), (8, 201), (256, 201), (257, 422)])
def test_password_has_8_to_256_characters(server, length, status_code):
    body = {"email": EMAIL, "verification_code": server.code_for(EMAIL), "password": "密" * length}

    answer = server.post("/auth/register", body)

    assert answer.status_code == status_code
    if status_code == 201:
        assert server.login(EMAIL, "密" * length).status_code == 200


@pytest.mark.parametrize("path", ["/auth/request-verification-code", "/auth/register", "/auth/login", "/auth/token"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"email": 5}', b"\xff\xfe", b'{"email": ["a"]}'])
def test_body_of_a_wrong_shape_is_refused(server, path, body):
    answer = requests.post(f"{server.url}{path}", body, headers={"Content-Type": "application/json"}, timeout=30)

    assert answer.status_code == 422


def test_refused_body_names_its_fields_and_repeats_no_secret(server):
    """What was sent does not come back: an answer may be logged where a password must not be."""
    answer = server.post("/auth/register", {"verification_code": 7, "password": ["hunter2"]})

    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [item["loc"] for item in answer.json()["errors"]] == [
        ["body", "email"],
        ["body", "verification_code"],
        ["body", "password"],
    ]
    assert "hunter2" not in answer.text


def test_answer_without_a_session_says_how_to_be_let_in(server):
    answer = requests.get(f"{server.url}/users/me", headers={"Accept-Language": "en"}, timeout=30)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["detail"] == "Not logged in, or the login is no longer valid. Log in again."


@pytest.mark.parametrize("form", [b"", b"username=%ff%fe&password=x", b"username=a%40example.com", b"%", b"=&=&="])
def test_form_of_a_wrong_shape_is_refused(server, form):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    assert requests.post(f"{server.url}/auth/token", form, headers=headers, timeout=30).status_code == 422


def test_form_with_a_file_for_a_password_is_refused(server):
    files = {"username": (None, EMAIL), "password": ("password.txt", b"x")}

    assert requests.post(f"{server.url}/auth/token", files=files, timeout=30).status_code == 422


def test_mail_that_cannot_be_sent_is_said(tmp_path):
    class DeadMailer:
        async def send(self, mail: Mail) -> None:
            raise MailNotSent("the server is on fire")

    with run_auth_server(tmp_path, mailer=DeadMailer()) as server:
        answer = server.request_code(EMAIL)

    assert (answer.status_code, answer.json()["code"]) == (503, "mail_not_sent")
    assert answer.headers["Retry-After"] == "60"


def test_sessions_of_a_user_are_bounded(server, monkeypatch):
    """Ended ones go at the next login, the oldest live ones beyond the bound too."""
    monkeypatch.setattr("beray.server.auth.service.MOST_SESSIONS", 3)
    tokens = [server.register(EMAIL)] + [server.login(EMAIL).json()["access_token"] for _ in range(3)]
    server.logout(tokens[3])

    assert [server.me(token).status_code for token in tokens] == [401, 200, 200, 401]
    tokens += [server.login(EMAIL).json()["access_token"] for _ in range(2)]

    assert [server.me(token).status_code for token in tokens[-3:]] == [401, 200, 200]
    assert server.execute("SELECT count(*) FROM session") == 3
