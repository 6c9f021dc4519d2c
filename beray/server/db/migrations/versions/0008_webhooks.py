"""Webhooks: whom a user, or a task, has us call, and the messages that wait to be taken."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("task", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.create_table(
        "webhook",
        sa.Column("user_id", big, autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("salt", sa.LargeBinary(length=16), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("old_salt", sa.LargeBinary(length=16), nullable=True),
        sa.Column("old_until", sa.BigInteger(), nullable=True),
        sa.Column("given_up", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("last_delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_fault", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name="fk_webhook_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name="pk_webhook"),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", big, autoincrement=True, nullable=False),
        sa.Column("user_id", big, nullable=False),
        sa.Column("task_id", big, nullable=False),
        sa.Column("message_id", sa.String(length=80), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("leased_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user_account.id"], name="fk_webhook_delivery_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_webhook_delivery_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_delivery"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_delivery_task_id", "webhook_delivery", ["task_id"], unique=False)
    op.create_index("ix_webhook_delivery_due_at", "webhook_delivery", ["due_at"], unique=False)
    op.create_index("ix_webhook_delivery_user_id_due_at", "webhook_delivery", ["user_id", "due_at"], unique=False)
