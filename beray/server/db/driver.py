"""Past SQLAlchemy, for the few statements that run for each event: it takes several times as long as they do.

They run in the transaction that SQLAlchemy has begun. What they fail with is raised as SQLAlchemy would raise it, so
that nobody need know by which way a statement went.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from beray.server.db.faults import hide_values


def execute(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
    """Run a statement as the driver takes it; its cursor."""
    try:
        return _driver(connection).execute(statement, parameters)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _usual(connection, error) from error


def execute_many(connection: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """Run a statement for each row; SQLite's driver."""
    try:
        _driver(connection).executemany(statement, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _usual(connection, error) from error


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _usual(connection: Connection, error: Exception) -> BaseException:
    hide_values(error)
    base = connection.dialect.loaded_dbapi.Error
    return DBAPIError.instance(None, None, error, base, hide_parameters=True, dialect=connection.dialect)
