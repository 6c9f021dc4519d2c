"""Look into a server's database from a program beside it (`beray admin`), without changing how it is."""

import os
import pwd
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from beray.server.db import migrate
from beray.server.db.connect import Database
from beray.server.db.faults import reason
from beray.server.db.sqlite import SqliteDatabase
from beray.server.errors import Refused


class CannotWork(Exception):
    """What was asked for can't be done; the text says why, and after the first sentence what to do."""


class DatabaseUnusable(CannotWork):
    """The database can't be used; the text says why and what to do."""


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """A connection on which nothing can be written, to a database with the tables that this version works on.

    Raises:
        DatabaseUnusable: There is none.
    """
    if isinstance(database, SqliteDatabase) and not database.path.exists():
        raise DatabaseUnusable(f"There is no database in {database.path.parent}. Name the data folder with --data DIR.")
    engine = _reading_engine(database)
    try:
        _check_schema(engine)
        with engine.connect() as connection:
            yield connection
    except (DBAPIError, migrate.NewerSchemaError, migrate.OldServerError) as error:
        raise unusable(database, error) from error
    finally:
        engine.dispose()


def unusable(database: Database, error: Exception) -> DatabaseUnusable:
    """What to tell of an error that the database gave."""
    if not isinstance(error, DBAPIError | OSError | Refused):
        return DatabaseUnusable(f"The database cannot be used: {error}")
    shared = "BERAY_DATABASE_URL, and that PostgreSQL runs there"
    where = shared if database.is_shared else "the data folder"
    return DatabaseUnusable(f"The database cannot be used: {reason(error, database.url)}. Check {where}.")


def operator() -> str:
    """Who calls the program, for the audit log."""
    uid = os.getuid()
    try:
        return f"operator {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"operator {uid}"


def _reading_engine(database: Database) -> Engine:
    """The database as it is: nothing can be written, not even what every other connection sets on it."""
    if not isinstance(database, SqliteDatabase):
        return database.make_engine().execution_options(postgresql_readonly=True)
    uri = f"{database.path.absolute().as_uri()}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)


def _check_schema(engine: Engine) -> None:
    """Whether the database has the tables that this version works on; nothing here brings any up to date.

    Raises:
        DatabaseUnusable: They are older, or there are none.
        NewerSchemaError: They are too new.
    """
    with engine.connect() as connection:
        current = migrate.current_revision(connection)
    if current is None or current < migrate.HEAD:
        state = "has no tables of BeRay" if current is None else f"is at revision {current}"
        raise DatabaseUnusable(
            f"Nothing was changed: the database {state}, and this version of BeRay works on revision {migrate.HEAD}."
            " Start a server of this version once, which brings it up to date, or use the version of the servers."
        )
    if current > migrate.HEAD:
        migrate.upgrade(engine)  # nothing to apply: it says whether this version works on the newer one
