"""The migrations give exactly the schema of `tables.py`, by Alembic or by their SQL, and HEAD names the newest."""

import warnings
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, make_url, text

from beray.server.db import migrate
from beray.server.db.logins import find_session
from beray.server.db.migrations.as_sql import DIALECTS, as_sql
from beray.server.db.open import make_database
from beray.server.db.tables import metadata
from tests.support.transactions import waits
from tests.support.waiting import wait_until


@pytest.fixture
def engine(database_url):
    engine = make_database(database_url).make_engine()
    yield engine
    engine.dispose()


@pytest.fixture(params=["by SQL", "by Alembic", "from the first revision"])
def schema_made(request, engine):
    """The three ways a database gets to the newest revision."""
    if request.param != "by SQL":
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(migrate.SCRIPTS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head" if request.param == "by Alembic" else "0001")
    migrate.upgrade(engine)
    return request.param


def test_migrations_give_the_tables(engine, schema_made):
    with engine.connect() as connection, warnings.catch_warnings():
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_written_sql_is_what_the_migrations_amount_to(dialect):
    written = (migrate.SCRIPTS / f"{dialect}.sql").read_text(encoding="utf-8")

    remedy = "uv run python -m beray.server.db.migrations.as_sql"
    assert written == as_sql(dialect, migrate.SCRIPTS), f"a migration was added or changed: {remedy}"


def test_what_no_table_shows_is_made_too(engine, schema_made):
    """Triggers, and the row that says which versions can work on the schema."""
    with engine.connect() as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if engine.dialect.name == "postgresql":
            names = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        triggers = set(connection.execute(text(names)).scalars())
        floor = connection.execute(text("SELECT oldest_head FROM schema_floor")).scalar_one()
        tables = set(inspect(connection).get_table_names())

    assert {name.rpartition("_")[0] for name in triggers} == {"audit_no"}
    assert len(triggers) == {"sqlite": 3, "postgresql": 2}[engine.dialect.name]
    assert floor <= migrate.HEAD
    assert tables == {*metadata.tables, "alembic_version"}


def test_head_is_the_newest_migration(engine):
    migrate.upgrade(engine)
    config = Config()
    config.set_main_option("script_location", "beray:server/db/migrations")

    with engine.connect() as connection:
        assert migrate.current_revision(connection) == migrate.HEAD
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


def test_upgrading_twice_changes_nothing(engine):
    migrate.upgrade(engine)

    migrate.upgrade(engine)

    with engine.connect() as connection:
        assert migrate.current_revision(connection) == migrate.HEAD


def test_request_in_the_middle_of_a_rolling_upgrade_waits_for_its_end(postgres_url):
    """Old processes look tokens up meanwhile: a migration that took their tables the other way round would end them."""
    migrating, reading = (make_database(make_url(postgres_url)).make_engine() for _ in range(2))
    looks: list[Future[None]] = []

    def look() -> None:
        with reading.connect() as connection:
            assert find_session(connection, b"", now=0) is None

    def look_meanwhile(connection, cursor, statement, *_) -> None:
        if statement.lstrip().startswith("ALTER TABLE") and not looks:
            looks.append(threads.submit(look))
            wait_until(lambda: waits(watching), what="the look-up to wait")

    with migrating.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
    watching = make_database(make_url(postgres_url)).make_engine()
    event.listen(migrating, "after_cursor_execute", look_meanwhile)
    with ThreadPoolExecutor(1) as threads:
        migrate.upgrade(migrating)
        looks[0].result(20)
    for each in (migrating, reading, watching):
        each.dispose()


def test_newer_schema_is_refused_with_what_to_do(engine):
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        connection.execute(text("UPDATE schema_floor SET oldest_head = '9998'"))

    with pytest.raises(migrate.NewerSchemaError, match=r"9999.*9998.*newer version"):
        migrate.upgrade(engine)


def test_newer_schema_that_says_so_is_worked_on(engine):
    """In a rolling upgrade an old process is started again beside new ones."""
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    migrate.upgrade(engine)

    with engine.connect() as connection:
        assert migrate.current_revision(connection) == "9999"


def test_processes_that_start_together_migrate_once(database_url):
    engines = [make_database(database_url).make_engine() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate.upgrade, engines))

    with engines[0].connect() as connection:
        assert migrate.current_revision(connection) == migrate.HEAD
    for engine in engines:
        engine.dispose()
