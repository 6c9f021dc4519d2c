"""A password's reset in one process against what others begin by the old one: whoever is second sees the first."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, make_url, text

from beray.server.audit import AuditTrail
from beray.server.auth.api_tokens import ApiTokens, Login
from beray.server.db import api_tokens, auth
from beray.server.db.auth import SessionRow, UserRow
from beray.server.db.logins import find_session
from beray.server.db.postgres import PostgresDatabase, postgres_engine
from beray.server.errors import Refused
from tests.support.databases import migrated
from tests.support.transactions import in_another, open_transaction, waits
from tests.support.waiting import begun, until

EMAIL = "user@example.com"
BEGINNINGS = ["login", "token"]


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """With user 1 and their session."""
    migrated(make_url(postgres_url))
    engine = postgres_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"), pool_size=3)
    with engine.begin() as connection:
        auth.insert_user(connection, EMAIL, password_hash="old", now=0)
        auth.insert_session(connection, 1, SessionRow(b"here", 0, 10))
    yield engine
    engine.dispose()


def reset(connection: Connection) -> None:
    auth.set_password_hash(connection, EMAIL, "new")
    auth.delete_sessions(connection, 1)
    api_tokens.delete_tokens(connection, 1)


def begin_session(connection: Connection) -> bool:
    if not auth.has_password_hash(connection, 1, "old"):
        return False
    auth.insert_session(connection, 1, SessionRow(b"there", 0, 10))
    return True


def make_token(connection: Connection) -> bool:
    auth.hold_user(connection, 1)
    if find_session(connection, b"here", now=1) is None:
        return False
    api_tokens.insert_token(connection, 1, token_hash=b"token", name="ci", created_at=1, expires_at=None)
    return True


def begin(kind: str) -> Callable[[Connection], bool]:
    return begin_session if kind == "login" else make_token


def left(engine: Engine) -> list[int]:
    """How many sessions and API tokens there are."""
    with engine.connect() as connection:
        tables = ("session", "api_token")
        return [connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables]


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_what_was_begun_before_a_reset_in_another_process_ends_with_it(engine, kind):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, begin(kind)) as is_begun:
            resetting = in_another(threads, engine, reset)
        resetting.result(20)

    assert is_begun
    assert left(engine) == [0, 0]


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_what_waits_for_a_reset_in_another_process_is_refused(engine, kind):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, reset):
            beginning = in_another(threads, engine, begin(kind))
        is_begun = beginning.result(20)

    assert not is_begun
    assert left(engine) == [0, 0]


async def test_token_made_by_a_session_that_a_reset_is_ending_is_refused(engine, postgres_url):
    """As the service makes it, in a process of its own."""
    database = PostgresDatabase(make_url(postgres_url))
    database.open()
    tokens = ApiTokens(database, lambda: 1, AuditTrail(database, lambda: 1))
    login = Login(UserRow(1, EMAIL, 0), b"here")

    with open_transaction(engine, reset):
        [making] = await begun(tokens.create(login, "ci", expires_in_seconds=None))
        await until(lambda: making.done() or waits(engine), what="the writer to wait")

    with pytest.raises(Refused, match="Not logged in"):
        await making
    assert left(engine) == [0, 0]
    await asyncio.to_thread(database.close)
