"""What models and tools have used, by task and day; the model a task's client named."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "usage_day",
        sa.Column("task_id", big, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("user_id", big, nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("tool_calls", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("unpriced", sa.Integer(), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=False),
        sa.Column("estimated_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimated_cost_usd", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name="fk_usage_day_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "day", "task_id", name="pk_usage_day"),
    )
    op.create_index("ix_usage_day_day", "usage_day", ["day"], unique=False)
    op.add_column("task", sa.Column("asked_model", sa.String(length=200), nullable=True))
