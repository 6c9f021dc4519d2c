"""A database on PostgreSQL that is opened, or can't be: what is said then, and what is not."""

import asyncio
import traceback
from unittest.mock import AsyncMock

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from beray.server import serve
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.app import create_app
from beray.server.db.faults import reason
from beray.server.db.open import database_url
from beray.server.db.postgres import PostgresDatabase, _PostgresStore
from beray.server.errors import Refused
from beray.server.purge import PurgeError, purge
from beray.server.serve import StartError
from beray.server.settings import SettingError, Settings
from tests.support.command_line import CommandLine
from tests.support.databases import migrated
from tests.support.waiting import until

PASSWORD = "s3cret pw@:/%"
IN_URL = "s3cret%20pw%40%3A%2F%25"
KEY = "k" * 32
FULL = "FATAL:  sorry, too many clients already"


@pytest.fixture
def settings(postgres_url, tmp_path, monkeypatch) -> Settings:
    monkeypatch.setattr("beray.server.app._has_app", False)  # none of those that are made here starts
    return Settings(data_dir=tmp_path, database_url=postgres_url, model="rules", port=0, secret_key=KEY)


def refuse(*args: object) -> None:
    """As the driver does when the server has no place for one more."""
    raise psycopg.errors.TooManyConnections(f'connection to server at "db", port 5432 failed: {FULL}\nsecond line')


def refuse_to_write(*args: object) -> None:
    """Likewise, through SQLAlchemy."""
    raise OperationalError("SELECT 1", {}, psycopg.errors.TooManyConnections(FULL))


async def test_password_of_any_characters_works(postgres, postgres_url):
    database = migrated(postgres.with_role(postgres_url, PASSWORD))
    database.open()
    try:
        assert await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1
    finally:
        await asyncio.to_thread(database.close)


@pytest.mark.parametrize("part", ["writer", "listener"])
async def test_database_that_cannot_be_had_is_refused(postgres_url, monkeypatch, part):
    if part == "writer":
        monkeypatch.setattr(_PostgresStore, "_tidy", refuse_to_write)
    else:
        monkeypatch.setattr(PostgresDatabase, "_listen", refuse)
    database = migrated(make_url(postgres_url))

    with pytest.raises(Refused) as refused:
        database.open()

    assert refused.value.code == "database_unavailable"
    await asyncio.to_thread(database.close)


def test_full_server_is_told_at_start(settings, monkeypatch):
    monkeypatch.setattr(PostgresDatabase, "_listen", refuse)

    with pytest.raises(StartError) as refused:
        serve.run(settings, announce=print)

    said = str(refused.value)
    assert all(part in said for part in ("TooManyConnections 53300", FULL, "BERAY_DATABASE_URL"))
    assert "second line" not in said


@pytest.mark.parametrize("error", [None, TimeoutError("another process has been migrating the database for 120 s")])
def test_purge_says_why_the_database_cannot_be_used(settings, postgres_url, monkeypatch, error):
    migrated(make_url(postgres_url))

    def fail(queue: object) -> None:
        raise error

    if error is None:
        monkeypatch.setattr(PostgresDatabase, "_listen", refuse)
    else:
        monkeypatch.setattr("beray.server.engine.dbos_queue.DbosQueue._launch", fail)

    with pytest.raises(PurgeError) as refused:
        purge(settings, days=1, is_dry=False)

    assert (FULL if error is None else str(error)) in str(refused.value)
    assert "BERAY_DATABASE_URL" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://beray:{IN_URL}@127.0.0.1:1/beray",
        f"postgresql://beray@127.0.0.1:1/beray?password={IN_URL}&sslpassword={IN_URL}",
    ],
)
@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("admin", "purge", "--days", "1", "--yes")])
def test_server_that_is_not_there_is_told_without_the_password(tmp_path, arguments, url):

    ended = CommandLine(tmp_path, {"BERAY_DATABASE_URL": url, "BERAY_MODEL": "rules", "BERAY_SECRET_KEY": KEY})(
        *arguments
    )

    assert ended.status == 1
    assert "BERAY_DATABASE_URL" in ended.err
    assert "refused" in ended.err
    assert "Internal error" not in ended.err
    assert "Background on this error" not in ended.err
    assert not any(secret in ended.out + ended.err for secret in (PASSWORD, IN_URL, "s3cret"))


@pytest.mark.parametrize(
    "url",
    [
        "beray",
        "postgresql://beray@db:543a/beray",
        "postgresql://beray:half@half:s3cret@db/beray",  # an @ that is not escaped: the rest passes for host and port
        "postgresql://beray@db",
        "mysql://beray@db/beray",
    ],
)
def test_url_that_cannot_be_read_is_told_with_what_is_needed(tmp_path, url):
    with pytest.raises(SettingError, match="BERAY_DATABASE_URL cannot be used: postgresql://user") as refused:
        database_url(Settings(data_dir=tmp_path, database_url=url))

    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_reason_never_has_the_password():
    url = make_url(f"postgresql://beray:{IN_URL}@db/beray")

    said = reason(psycopg.OperationalError(f"cannot connect as beray:{PASSWORD}\nsecond line"), url)

    assert said == "OperationalError: cannot connect as beray:***"


def test_old_server_is_refused_before_anything_is_changed(settings, postgres_url, monkeypatch):
    monkeypatch.setattr(
        "sqlalchemy.dialects.postgresql.base.PGDialect._get_server_version_info", lambda *args: (12, 19)
    )

    with pytest.raises(StartError, match=r"PostgreSQL 12\.19; BeRay needs 13 or later"):
        serve.run(settings, announce=print)
    with pytest.raises(PurgeError, match=r"no tables of BeRay.*Start a server"):
        purge(settings, days=1, is_dry=True)

    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


async def test_ready_shows_nobody_what_the_driver_says(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("beray.server.app._has_app", False)
    app = create_app(Settings(data_dir=tmp_path), Models(ModelChoice("beray:rules", "rules")))
    said = 'connection to server at "10.1.2.3", port 5432 failed: no password supplied for user "beray"'
    monkeypatch.setattr(app._engine, "start", AsyncMock(side_effect=psycopg.OperationalError(said)))

    starting = asyncio.create_task(app._start_engine())
    await until(lambda: app.readiness.checks["engine"]["state"] == "failed", what="the failure")
    starting.cancel()

    assert (
        app.readiness.checks["engine"]["hint"] == "The engine did not start (OperationalError). See the server's log."
    )
    assert said in caplog.text
