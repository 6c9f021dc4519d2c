"""Accounts: who runs the server, which are being deleted, and where each session was begun and used last."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Sessions first, as whoever looks a token up takes them: the other way round one would end the other's deadlock.
    op.add_column("session", sa.Column("user_agent", sa.String(length=300), nullable=True))
    op.add_column("session", sa.Column("address", sa.String(length=64), nullable=True))
    op.add_column("session", sa.Column("last_used_at", sa.BigInteger(), nullable=True))
    op.add_column("user_account", sa.Column("is_admin", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("user_account", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_user_account_deleted_at", "user_account", ["deleted_at"], unique=False)
