"""`beray` as its next version might be: another version number, and a newer schema that this version can work on.

python -m tests.support.next_version serve --no-worker ...
"""

import shutil
import sys
import tempfile
from pathlib import Path

VERSION = "99.0.0"
HEAD = "9001"
MIGRATION = f'''
"""What a next version might add: a column with a default, a table."""

import sqlalchemy as sa
from alembic import op

revision = "{HEAD}"
down_revision = "{{down}}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("next_version", sa.Text(), server_default=sa.text("'new'"), nullable=False))
    op.create_table("next_version", sa.Column("id", sa.Integer(), nullable=False), sa.PrimaryKeyConstraint("id"))
'''


def main() -> int:
    """Run the command line."""
    import beray

    beray.__version__ = VERSION
    from beray.cli.main import main as run
    from beray.server.db import migrate

    with tempfile.TemporaryDirectory(prefix="beray-next-") as folder:
        scripts = Path(folder) / "migrations"
        shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        (scripts / "versions" / f"{HEAD}_next.py").write_text(MIGRATION.format(down=migrate.HEAD))
        migrate.SCRIPTS, migrate.HEAD = scripts, HEAD
        return run()


if __name__ == "__main__":
    sys.exit(main())
