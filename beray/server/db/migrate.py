"""Bring a database's schema to the newest revision. Alembic is imported only when there is something to do."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

HEAD = "0001"
"""The newest revision in `migrations/versions`; a test keeps it true."""


class NewerSchemaError(Exception):
    """The database was made by a newer BeRay."""


def upgrade(engine: Engine) -> None:
    """Apply the missing migrations in one transaction.

    Raises:
        NewerSchemaError: The database holds a revision this version does not know.
    """
    with engine.begin() as connection:
        current = current_revision(connection)
        if current == HEAD:
            return
        _apply(connection, current)


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _apply(connection: Connection, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise NewerSchemaError(
            f"The database is at revision {current}, which this version of BeRay does not know. "
            "Install the newer version that made it, or use another data folder."
        )
    command.upgrade(config, "head")
