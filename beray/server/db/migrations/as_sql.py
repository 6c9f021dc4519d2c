"""Write what all migrations do to an empty database as SQL, so that a new one is made without Alembic (`migrate.py`).

    uv run python -m beray.server.db.migrations.as_sql

The files beside this one are never edited by hand; a test holds them against the migrations.
"""

import io
import re
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

DIALECTS: Final = ("sqlite", "postgresql")
HEAD_LINES: Final = "-- Written by `python -m beray.server.db.migrations.as_sql` from the migrations; not by hand.\n\n"
LEFT_OUT: Final = re.compile(r"^-- Running .*\n\n| +$", re.MULTILINE)  # between two migrations; at the end of lines


def as_sql(dialect: str, scripts: Path) -> str:
    """The statements of all migrations in `scripts`, each ended by a semicolon and an empty line."""
    written = io.StringIO()
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes |= {"dialect": dialect, "output": written}
    command.upgrade(config, "head", sql=True)
    return HEAD_LINES + LEFT_OUT.sub("", written.getvalue())


def main() -> None:
    """Rewrite the files."""
    scripts = Path(__file__).parent
    for dialect in DIALECTS:
        (scripts / f"{dialect}.sql").write_text(as_sql(dialect, scripts), encoding="utf-8")


if __name__ == "__main__":
    main()
