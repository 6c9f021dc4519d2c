"""The migrations give exactly the schema of `tables.py`, and HEAD names the newest."""

import warnings

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from beray.server.db import migrate
from beray.server.db.connect import sqlite_engine
from beray.server.db.tables import metadata


@pytest.fixture
def engine(tmp_path):
    engine = sqlite_engine(tmp_path / "beray.db")
    yield engine
    engine.dispose()


def test_migrations_give_the_tables(engine):
    migrate.upgrade(engine)

    with engine.connect() as connection, warnings.catch_warnings():
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


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


def test_newer_schema_is_refused_with_what_to_do(engine):
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(migrate.NewerSchemaError, match=r"9999.*newer version"):
        migrate.upgrade(engine)
