"""Bring a database's schema to the newest revision.

An empty database gets it by the SQL that the migrations amount to (`migrations/as_sql.py`). Only an older one needs
Alembic, whose import alone costs a tenth of a start and 10 MB.
"""

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, inspect, text

HEAD = "0009"
"""The newest revision in `migrations/versions`; a test keeps it true. Revisions are numbers, so they compare."""

SCRIPTS = Path(__file__).parent / "migrations"  # a migration only adds: the version before works on its schema too
END_OF_STATEMENT: Final = ";\n\n"  # the bodies of triggers hold semicolons too
LOCK_KEY = 0x42655261  # "BeRa"; processes that start together migrate one after the other

POSTGRES_LEAST: Final = 13  # it has `pg_current_xact_id`


class OldServerError(Exception):
    """The database server is too old for BeRay."""


class NewerSchemaError(Exception):
    """The database was made by a newer BeRay."""


def upgrade(engine: Engine) -> None:
    """Apply the missing migrations in one transaction; processes that start together wait for each other.

    A schema that a newer version has made is left as it is if this one can work on it: in a rolling upgrade both run
    side by side. Each migration says in `schema_floor` which versions can.

    Raises:
        NewerSchemaError: This version is too old for the schema.
        OldServerError: The database server is too old.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            _check_server(connection.dialect.server_version_info or ())
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # a big table takes its time
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        current = current_revision(connection)
        if current is None:
            current = _make_schema(connection)
        if current > HEAD:
            _check_floor(connection, current)
        elif current != HEAD:
            _apply(connection)


def _check_server(version: tuple[Any, ...]) -> None:
    """Before anything is changed in it."""
    if version < (POSTGRES_LEAST,):
        shown = ".".join(map(str, version))
        raise OldServerError(
            f"BERAY_DATABASE_URL names a PostgreSQL {shown}; BeRay needs {POSTGRES_LEAST} or later. Upgrade it, or use"
            " another server."
        )


def _check_floor(connection: Connection, current: str) -> None:
    floor: str = connection.execute(text("SELECT oldest_head FROM schema_floor")).scalar_one()
    if floor > HEAD:
        raise NewerSchemaError(
            f"The database is at revision {current}, on which this version of BeRay cannot work (it knows {HEAD}; "
            f"{floor} is needed). Install the newer version that made it, or use another database."
        )


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _make_schema(connection: Connection) -> str:
    """Make the schema in an empty database; the revision it is at then."""
    written = (SCRIPTS / f"{connection.dialect.name}.sql").read_text(encoding="utf-8")
    for statement in written.split(END_OF_STATEMENT):
        if statement.strip():
            connection.exec_driver_sql(statement)
    revision = current_revision(connection)
    assert revision is not None, "the schema's own SQL names no revision"
    return revision


def _apply(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
