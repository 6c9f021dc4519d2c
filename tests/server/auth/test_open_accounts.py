"""Accounts as the server's settings ask for, and the embedded server's own user."""

import asyncio

import pytest
from sqlalchemy import text
from starlette.requests import HTTPConnection

from beray.server.audit import AuditTrail
from beray.server.auth.mailer import make_mailer
from beray.server.auth.passwords import SLOTS, WAITING, Passwords
from beray.server.auth.service import open_accounts
from beray.server.errors import Refused
from beray.server.settings import SettingError, Settings
from tests.server.auth.auth_server import FakeClock, StuckHasher, make_accounts, make_database
from tests.support.waiting import begun


def bearing(token: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})


@pytest.fixture
async def database(tmp_path):
    database = make_database(tmp_path)
    database.open()
    yield database
    database.close()


async def test_accounts_without_any_setting_work(tmp_path, database):
    announced: list[str] = []
    accounts = open_accounts(
        Settings(data_dir=tmp_path),
        database,
        clock=FakeClock(),
        trail=AuditTrail(database, FakeClock()),
        announce=announced.append,
    )

    await accounts.request_code("user@example.com", client="127.0.0.1")
    code = announced[0].split("：")[1].split()[0]
    session = await accounts.register("user@example.com", code, "a_very_secure_password", client="127.0.0.1")

    assert await accounts.authenticate(bearing(session.token)) == session.user
    await accounts.close()


async def test_local_user_has_one_fresh_token_and_no_password(tmp_path, database):
    accounts = open_accounts(
        Settings(data_dir=tmp_path),
        database,
        clock=FakeClock(),
        trail=AuditTrail(database, FakeClock()),
        announce=print,
    )

    user, first = await accounts.ensure_local_user()
    again, second = await accounts.ensure_local_user()

    assert user == again
    assert user.email == "local@localhost"
    assert await accounts.authenticate(bearing(second)) == user
    with pytest.raises(Refused, match="Not logged in"):
        await accounts.authenticate(bearing(first))
    with pytest.raises(Refused, match="not a valid e-mail address"):
        await accounts.request_code("local@localhost", client="127.0.0.1")
    for password in ("", "password"):
        with pytest.raises(Refused):
            await accounts.login("local@localhost", password, client="127.0.0.1")
    await accounts.close()


async def test_user_without_password_cannot_log_in_by_one(tmp_path, database):
    """Should a user without password ever have a mailbox's address, no password is theirs."""
    accounts = open_accounts(
        Settings(data_dir=tmp_path),
        database,
        clock=FakeClock(),
        trail=AuditTrail(database, FakeClock()),
        announce=print,
    )
    insert = text("INSERT INTO user_account (email, created_at) VALUES ('user@example.com', 0)")
    await database.write(lambda connection: connection.execute(insert).rowcount)

    for password in ("", "None", "password"):
        with pytest.raises(Refused, match="is wrong"):
            await accounts.login("user@example.com", password, client="127.0.0.1")
    await accounts.close()


async def test_login_turned_away_unread_is_not_a_wrong_password(tmp_path, database):
    """While too many hashes wait a login is refused for a second; that must not use up the ten tries."""
    clock, hasher, settings = FakeClock(), StuckHasher(), Settings(data_dir=tmp_path)
    mailer = make_mailer(settings, clock, print)
    passwords = Passwords(hasher)
    accounts = make_accounts(settings, database, clock=clock, passwords=passwords, mailer=mailer)
    waiting = await begun(*(passwords.hash("x") for _ in range(SLOTS + WAITING)))  # each has its place

    for _ in range(12):
        with pytest.raises(Refused) as refused:
            await accounts.login("user@example.com", "x", client="192.0.2.2")
        assert refused.value.retry_after_seconds == 1
    hasher.go.set()
    await asyncio.gather(*waiting)

    with pytest.raises(Refused, match="is wrong"):
        await accounts.login("user@example.com", "x", client="192.0.2.2")
    await accounts.close()


@pytest.mark.parametrize(
    "wrong", [{"smtp_url": "mail.example.com"}, {"secret_key": "short"}, {"trusted_proxies": ("x",)}]
)
async def test_setting_that_cannot_be_used_stops_the_start(tmp_path, database, wrong):
    with pytest.raises(SettingError, match="BERAY_"):
        open_accounts(
            Settings(data_dir=tmp_path, **wrong),
            database,
            clock=FakeClock(),
            trail=AuditTrail(database, FakeClock()),
            announce=print,
        )
