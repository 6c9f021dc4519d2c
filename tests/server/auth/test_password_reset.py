"""Resetting a password over HTTP, against a real server."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from beray.server.auth.mailer import Mail, MailNotSent
from tests.server.auth.auth_server import EMAIL, NEW_PASSWORD, PASSWORD, CountingHasher, run_auth_server, wrong
from tests.support.waiting import wait_until


def test_owner_of_the_mailbox_sets_another_password(server):
    server.register(EMAIL)

    answer = server.reset(server.reset_code_for(EMAIL))

    assert answer.status_code == 200
    assert answer.json() == {"message": "密码已重置，所有登录和 API 令牌均已失效。请用新密码登录。"}
    assert server.login(EMAIL).status_code == 401
    assert server.login(EMAIL, NEW_PASSWORD).status_code == 200
    assert server.audited("password.reset") == [None]


def test_reset_ends_everything_the_old_password_began_and_nobody_elses(server):
    tokens = [server.register(EMAIL), server.login(EMAIL).json()["access_token"]]
    tokens.append(server.make_token(tokens[0])["token"])
    others = [server.register("other@example.com")]
    others.append(server.make_token(others[0])["token"])
    assert [server.me(token).status_code for token in tokens] == [200] * 3

    server.reset(server.reset_code_for(EMAIL))

    assert [server.me(token).status_code for token in tokens] == [401] * 3
    assert [server.me(token).status_code for token in others] == [200] * 2
    assert server.execute("SELECT count(*) FROM api_token") == 1


def test_mail_tells_a_reset_from_a_registration_in_both_languages(server):
    server.register(EMAIL)

    server.reset_code_for(EMAIL)
    server.request_reset(EMAIL, headers={"Accept-Language": "en"})
    wait_until(lambda: len(server.mailbox(EMAIL)) == 3, what="the mails")

    registration, chinese, english = server.mailbox(EMAIL)
    assert "重置" not in registration
    assert "有人请求重置您的 BeRay 密码" in chinese
    assert "somebody asked to reset your BeRay password" in english
    assert any("重置密码的验证码" in line for line in server.announced)


def test_password_that_may_not_be_set_is_refused_and_keeps_the_code(server):
    server.register(EMAIL)
    code = server.reset_code_for(EMAIL)

    assert [server.reset(code, password="x" * length).status_code for length in (7, 257)] == [422, 422]
    assert server.reset(code).status_code == 200


@pytest.mark.parametrize("purpose", ["login", "", None, 5, "Reset"])
def test_code_for_another_purpose_is_refused(server, purpose):
    answer = server.post("/auth/request-verification-code", {"email": EMAIL, "purpose": purpose})

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "purpose"])


def test_wrong_guesses_cost_no_hash_work_and_are_told(server):
    server.register(EMAIL)
    code = server.reset_code_for(EMAIL)
    server.hasher.work.clear()

    assert [server.reset(wrong(code)).status_code for _ in range(6)] == [400] * 6

    assert server.hasher.work == []
    assert len(server.audited("password.reset.failed")) == 6


def test_two_resets_with_one_code_at_once_set_one_password(server):
    server.register(EMAIL)
    code = server.reset_code_for(EMAIL)
    passwords = ["first_password", "second_password"]

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda password: server.reset(code, password=password).status_code, passwords))

    assert sorted(answers) == [200, 400]
    assert [server.login(EMAIL, password).status_code for password in passwords] == [
        200 if status == 200 else 401 for status in answers
    ]


class HeldHasher(CountingHasher):
    """Verifies a password once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.begun.set()
        assert self.go.wait(30)
        return super().verify(hash, password)


def test_login_under_way_with_the_old_password_is_refused_after_the_reset(tmp_path):
    """Or whoever knows the old password could slip a session in behind the reset."""
    hasher = HeldHasher()
    with run_auth_server(tmp_path, hasher=hasher, rate_limits=False) as server, ThreadPoolExecutor(1) as threads:
        server.register(EMAIL)
        code = server.reset_code_for(EMAIL)
        login = threads.submit(server.login, EMAIL, PASSWORD)
        assert hasher.begun.wait(30)

        assert server.reset(code).status_code == 200
        hasher.go.set()

        assert login.result(30).status_code == 401
        assert server.execute("SELECT count(*) FROM session") == 0


def test_login_with_the_password_just_set_is_let_in(tmp_path):
    """The hash it began to look at is no longer there; the password is right all the same."""
    hasher = HeldHasher()
    with run_auth_server(tmp_path, hasher=hasher, rate_limits=False) as server, ThreadPoolExecutor(1) as threads:
        server.register(EMAIL)
        code = server.reset_code_for(EMAIL)
        login = threads.submit(server.login, EMAIL, PASSWORD)
        assert hasher.begun.wait(30)

        assert server.reset(code, password=PASSWORD).status_code == 200
        hasher.go.set()

        assert login.result(30).status_code == 200


class HeldMailer:
    """Sends no mail that can be seen, once it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.go = threading.Event()

    async def send(self, mail: Mail) -> None:
        self.began.append(mail.to)
        await asyncio.to_thread(self.go.wait, 30)
        raise MailNotSent("the server is on fire")


def test_answer_waits_for_no_mail_server(tmp_path):
    """Its time, or its fault, would tell who has an account."""
    mailer = HeldMailer()
    with run_auth_server(tmp_path, mailer=mailer, rate_limits=False) as server:
        server.execute("INSERT INTO user_account (email, created_at) VALUES (:email, 0)", email=EMAIL)

        answers = [server.request_reset(email) for email in (EMAIL, "nobody@example.com")]
        wait_until(lambda: mailer.began, what="the mail under way")
        mailer.go.set()

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, answers[0].json())] * 2
    assert mailer.began == [EMAIL]


def test_mails_under_way_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("beray.server.auth.errands.MOST", 1)
    mailer = HeldMailer()
    with run_auth_server(tmp_path, mailer=mailer, rate_limits=False) as server:
        server.execute("INSERT INTO user_account (email, created_at) VALUES (:email, 0)", email=EMAIL)
        assert server.request_reset(EMAIL).status_code == 200

        refused = server.request_reset("nobody@example.com")
        mailer.go.set()

    assert (refused.status_code, refused.json()["code"]) == (503, "mail_not_sent")


def test_reset_is_limited_and_makes_its_client_known(limited_server):
    """After a flood of wrong passwords from elsewhere who has proven to own the mailbox is let in."""
    limited_server.register(EMAIL)
    limited_server.clock.advance(minutes=1)
    code = limited_server.reset_code_for(EMAIL)
    assert limited_server.request_reset(EMAIL).status_code == 429
    assert limited_server.execute("SELECT count(*) FROM rate_counter WHERE key LIKE 'known/%'") == 0

    assert limited_server.reset(code).status_code == 200

    assert limited_server.execute("SELECT count(*) FROM rate_counter WHERE key LIKE 'known/%'") == 1
    answers = [limited_server.reset("000000").status_code for _ in range(20)]
    assert answers == [400] * 19 + [429]
