"""What users say to their tasks after the goal."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    task_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "message",
        sa.Column("task_id", task_id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("question_id", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_message_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "number", name="pk_message"),
    )
