"""From a URL to the database behind it. PostgreSQL's driver is an extra, imported only when it is needed."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from beray.server.db.connect import Database
from beray.server.settings import SettingError, Settings

SQLITE_FILE = "beray.db"


def database_url(settings: Settings) -> URL:
    """Where the database is: `database_url`, else a file in the data folder.

    Raises:
        SettingError: The URL can't be used.
    """
    if settings.database_url is None:
        return URL.create("sqlite", database=str(settings.data_dir / SQLITE_FILE))
    problem = "BERAY_DATABASE_URL cannot be used: postgresql://user:password@host:5432/database is needed."
    try:
        url = make_url(settings.database_url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise SettingError(problem) from None  # it may quote a password with an @ in it
    if url.get_backend_name() not in {"postgresql", "postgres"} or not url.database:
        raise SettingError(problem)
    password = url.query.get("password")  # libpq takes it there too, where nobody would know to hide it
    if isinstance(password, str):
        url = url.set(password=password).difference_update_query(["password"])
    return url.set(drivername="postgresql")


def make_database(url: URL) -> Database:
    """The database at a URL of `database_url`, not yet open.

    Raises:
        SettingError: PostgreSQL is wanted, but its driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        from beray.server.db.sqlite import SqliteDatabase

        assert url.database is not None
        return SqliteDatabase(Path(url.database))
    try:
        from beray.server.db.postgres import PostgresDatabase
    except ImportError as error:
        raise SettingError(
            "BERAY_DATABASE_URL names PostgreSQL, whose driver is not installed: pip install 'beray[postgres]'"
        ) from error
    return PostgresDatabase(url)
