"""Whose token a request bears, looked up alone or with a row of theirs: on each database, remembered or not."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from starlette.requests import HTTPConnection

from beray.server.auth.mailer import make_mailer
from beray.server.auth.passwords import Passwords
from beray.server.auth.service import Accounts
from beray.server.auth.tokens import hash_token, new_api_token, new_token
from beray.server.db import api_tokens, auth
from beray.server.db.auth import SessionRow, UserRow
from beray.server.db.connect import Database
from beray.server.db.tasks import OWN_TASK, TaskRecord
from beray.server.errors import Refused
from beray.server.settings import Settings
from tests.server.auth.auth_server import CountingHasher, FakeClock, make_accounts
from tests.support.databases import seeded_database

DAY_MS = 86_400_000
ANN = UserRow(1, "a@example.com", 0)


class Scene:
    """Accounts over a database with user 1, who has task 1 and a token of each kind."""

    def __init__(self, database: Database, accounts: Accounts, clock: FakeClock) -> None:
        self.database = database
        self.accounts = accounts
        self.clock = clock
        self.session, self.api_token = new_token(), new_api_token()
        self.look_ups = 0
        find = database.find

        async def counted(*args, **values):
            self.look_ups += 1
            return await find(*args, **values)

        database.find = counted

    async def log_in(self) -> None:
        def insert(connection) -> None:
            now = self.clock()
            auth.insert_session(connection, 1, SessionRow(hash_token(self.session), now, now + DAY_MS))
            hashed = hash_token(self.api_token)
            api_tokens.insert_token(
                connection, 1, token_hash=hashed, name="ci", created_at=now, expires_at=now + DAY_MS
            )

        await self.database.write(insert)

    async def user_of(self, token: str) -> UserRow | None:
        try:
            return await self.accounts.authenticate(bearing(token))
        except Refused as refused:
            if refused.code != "not_authenticated":
                raise
            return None

    async def user_and_task(self, token: str, task_id: int) -> tuple[UserRow, TaskRecord | None]:
        user, row = await self.accounts.authenticate_owner(bearing(token), OWN_TASK, task_id=task_id)
        return user, None if row is None else TaskRecord._make(row)


def bearing(token: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})


@pytest.fixture
async def scene(database_url, tmp_path) -> AsyncIterator[Scene]:
    settings, clock = Settings(data_dir=tmp_path), FakeClock()
    with seeded_database(database_url, 1, status="queued") as database:
        mailer = make_mailer(settings, clock, print)
        accounts = make_accounts(settings, database, clock=clock, passwords=Passwords(CountingHasher()), mailer=mailer)
        scene = Scene(database, accounts, clock)
        await scene.log_in()
        yield scene
        await accounts.close()


@pytest.fixture
def remembering(scene: Scene) -> Scene:
    scene.database.deliver = scene.accounts.hear
    scene.accounts.remember_tokens()
    return scene


@pytest.mark.parametrize("is_api_token", [False, True])
async def test_user_and_task_come_with_one_look_up(scene, is_api_token):
    token = scene.api_token if is_api_token else scene.session

    user, task = await scene.user_and_task(token, 1)

    assert (user, scene.look_ups) == (ANN, 1)
    assert task is not None
    assert (task.id, task.user_id, task.goal, task.status, bool(task.stop_requested)) == (1, 1, "g", "queued", False)
    assert await scene.user_and_task(token, 2) == (ANN, None)
    assert await scene.user_of(token) == ANN
    assert await scene.user_of(new_token()) is None
    assert await scene.user_of(new_api_token()) is None


async def test_task_of_somebody_else_is_not_there(scene):
    def give_away(connection) -> None:
        stranger = auth.insert_user(connection, "b@example.com", password_hash=None, now=0)
        connection.execute(text("UPDATE task SET user_id = :id"), {"id": stranger.id})

    await scene.database.write(give_away)

    assert await scene.user_and_task(scene.session, 1) == (ANN, None)
    assert await scene.user_and_task(scene.session, 1) == (ANN, None)


async def test_nothing_is_remembered_unless_that_is_asked_for(scene):
    """Another process may end a login, and be heard of too late."""
    for looks in (1, 2):
        assert await scene.user_of(scene.session) == ANN
        assert scene.look_ups == looks


@pytest.mark.parametrize("is_api_token", [False, True])
async def test_remembered_token_is_looked_up_once_in_a_while(remembering, is_api_token):
    token = remembering.api_token if is_api_token else remembering.session

    for _ in range(3):
        assert await remembering.user_of(token) == ANN
    assert remembering.look_ups == 1
    assert (await remembering.user_and_task(token, 1))[1] is not None
    assert remembering.look_ups == 2, "the task alone"

    remembering.clock.advance(days=1)
    assert await remembering.user_of(token) is None


async def test_remembered_token_is_dead_when_its_login_has_ended(remembering):
    for token in (remembering.session, remembering.api_token):
        assert await remembering.user_of(token) == ANN

        await remembering.accounts.logout(bearing(token))

        assert await remembering.user_of(token) is None


@pytest.mark.parametrize("end", [auth.delete_sessions, api_tokens.delete_tokens])
async def test_remembered_tokens_are_forgotten_by_whatever_ends_them(remembering, end):
    token = remembering.session if end is auth.delete_sessions else remembering.api_token
    assert await remembering.user_of(token) == ANN

    await remembering.database.write(lambda connection: end(connection, 1))

    assert await remembering.user_of(token) is None


async def test_oldest_session_of_too_many_is_forgotten(remembering):
    assert await remembering.user_of(remembering.session) == ANN

    def begin_another(connection) -> None:
        now = remembering.clock()
        auth.insert_session(connection, 1, SessionRow(b"another", now, now + DAY_MS))
        auth.purge_sessions(connection, 1, now=now, most=1)

    await remembering.database.write(begin_another)

    assert await remembering.user_of(remembering.session) is None


async def test_watch_of_a_login_sees_its_end_without_looking_all_the_time(remembering):
    watch, row = await remembering.accounts.watch_login(bearing(remembering.api_token), OWN_TASK, task_id=1)
    assert row is not None
    looks = remembering.look_ups
    assert [await watch() for _ in range(10)] == [True] * 10
    assert remembering.look_ups == looks

    await remembering.accounts.logout(bearing(remembering.session))
    assert await watch(), "it came by another token"
    await remembering.accounts.logout(bearing(remembering.api_token))

    assert not await watch()
