"""Who is an admin: the rules, within a transaction, whoever asks."""

from sqlalchemy import Connection

from beray.server.db import admin as queries
from beray.server.db.accounts import hold_with_admins
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.auth import UserRow
from beray.server.errors import Refused


def promote(connection: Connection, user: UserRow, entry: AuditRow) -> None:
    """Make the user an admin, and tell the audit log.

    Raises:
        Refused: `admin_needs_password`: who can't log in can change nothing.
    """
    hold_with_admins(connection, user.id)
    if not queries.has_password(connection, user.id):
        raise Refused("admin_needs_password", email=user.email)
    _change(connection, user, entry, is_admin=True)


def demote(connection: Connection, user: UserRow, entry: AuditRow, *, may_be_last: bool) -> None:
    """Take the role of an admin away, and tell the audit log.

    Raises:
        Refused: `last_admin`, unless the last one may be demoted.
    """
    hold_with_admins(connection, user.id)
    if queries.list_admins(connection) == [user.id] and not may_be_last:
        raise Refused("last_admin")
    _change(connection, user, entry, is_admin=False)


def _change(connection: Connection, user: UserRow, entry: AuditRow, *, is_admin: bool) -> None:
    if queries.set_admin(connection, user.id, is_admin=is_admin):
        insert_row(connection, entry)
