"""What several processes on one database need: who lives, which program may use the schema, quick looks for tidying."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "process",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_process"),
    )
    op.create_table(
        "writer",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("last_group", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_writer"),
    )
    op.create_table(
        "schema_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("oldest_head", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_floor"),
    )
    op.execute("INSERT INTO schema_floor (id, oldest_head) VALUES (1, '0002')")
    op.add_column("task", sa.Column("interrupts", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index("ix_task_deleted_at", "task", ["deleted_at"], unique=False)
    op.create_index("ix_task_finished_at", "task", ["finished_at"], unique=False)
    op.create_index("ix_task_held_until", "task", ["held_until"], unique=False)
