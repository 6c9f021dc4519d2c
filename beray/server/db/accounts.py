"""SQL of accounts that are deleted: nobody's at once, gone when all that was theirs has gone.

The row stays meanwhile, without an address, for its tasks belong to it until their files are removed. It also stays as
long as something was used for it today: the server's own limits of a day count that, and deleting an account must not
give it back.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from beray.server.clock import DAY_MS
from beray.server.db.auth import UserRow
from beray.server.db.notices import Notice, notify

_HOLD = text(
    "SELECT id FROM user_account WHERE (is_admin AND deleted_at IS NULL) OR id = :user_id"
    " ORDER BY id FOR NO KEY UPDATE"  # in order: of two that leave at once neither waits for the other
)
_OTHERS = text(
    "SELECT max(CASE WHEN id = :user_id AND is_admin THEN 1 ELSE 0 END),"
    " max(CASE WHEN id != :user_id AND is_admin THEN 1 ELSE 0 END),"
    " max(CASE WHEN id != :user_id THEN 1 ELSE 0 END) FROM user_account WHERE deleted_at IS NULL"
)
_CLOSE = text(
    "UPDATE user_account SET email = :nobody, password_hash = NULL, is_admin = false, deleted_at = :now"
    " WHERE id = :user_id"
)
_FORGET_CODES = text("DELETE FROM verification_code WHERE email = :email")
_FORGET: Final = tuple(
    text(f"DELETE FROM {table} WHERE user_id = :user_id")  # noqa: S608 - only constants
    for table in ("session", "api_token", "webhook_delivery", "webhook", "idempotency_key")
)
_FORGET_USE = text("DELETE FROM usage_day WHERE user_id = :user_id AND day < :today")
_HIDE_TASKS = text(
    "UPDATE task SET deleted_at = :now, stop_requested = true WHERE user_id = :user_id AND deleted_at IS NULL"
)
_HIDDEN_TASKS = text("SELECT id, run FROM task WHERE user_id = :user_id AND deleted_at IS NOT NULL ORDER BY id")
_CLOSED = text(
    "SELECT id FROM user_account u WHERE deleted_at IS NOT NULL"
    " AND (NOT EXISTS (SELECT 1 FROM usage_day d WHERE d.user_id = u.id AND d.day >= :today)"
    " OR EXISTS (SELECT 1 FROM task t WHERE t.user_id = u.id AND t.deleted_at IS NULL))"
)
_LOCK = text("SELECT 1 FROM user_account WHERE id = :user_id FOR UPDATE")
_REMOVE = text(
    "DELETE FROM user_account WHERE id = :user_id AND deleted_at IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM task WHERE user_id = :user_id)"
    " AND NOT EXISTS (SELECT 1 FROM usage_day WHERE user_id = :user_id AND day >= :today)"
)


def hold_with_admins(connection: Connection, user_id: int) -> None:
    """Have others wait that change this user, or an administrator (SQLite has one writer anyway)."""
    if connection.dialect.name == "postgresql":
        connection.execute(_HOLD, {"user_id": user_id})


def is_last_admin(connection: Connection, user_id: int) -> bool:
    """Whether the user is the only administrator, and there are others who need one."""
    is_admin, has_other_admin, has_others = connection.execute(_OTHERS, {"user_id": user_id}).one()
    return bool(is_admin and has_others and not has_other_admin)


def close_account(connection: Connection, user: UserRow, *, now: int) -> None:
    """Make the account nobody's: no login of it lives, its address is free, its tasks are hidden and to stop."""
    values = {"user_id": user.id, "now": now}
    connection.execute(_HIDE_TASKS, values)  # first, as runs have their task before they look for its user
    connection.execute(_CLOSE, {**values, "nobody": f"deleted {user.id}"})  # no address has a space in it
    connection.execute(_FORGET_CODES, {"email": user.email})
    for statement in _FORGET:
        connection.execute(statement, {"user_id": user.id})
    connection.execute(_FORGET_USE, {"user_id": user.id, "today": now // DAY_MS})
    notify(connection, Notice("login", user.id))
    notify(connection, Notice("stop"))


def list_hidden_tasks(connection: Connection, user_id: int) -> Sequence[tuple[int, int]]:
    """Id and run count of the user's tasks that are hidden."""
    return [(row[0], row[1]) for row in connection.execute(_HIDDEN_TASKS, {"user_id": user_id})]


def list_closed(connection: Connection, *, now: int) -> Sequence[int]:
    """Ids of closed accounts that may go now, or have a task that was made while they were closed."""
    return connection.execute(_CLOSED, {"today": now // DAY_MS}).scalars().all()


def remove_account(connection: Connection, user_id: int, *, now: int) -> bool:
    """Remove the row of a closed account if nothing needs it any more; whether it has gone.

    A task that an older version has made for it meanwhile, which does not ask whose an account is, is hidden too.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"user_id": user_id})  # nobody adds a task between the look and the removal
    values = {"user_id": user_id, "now": now}
    if connection.execute(_HIDE_TASKS, values).rowcount:
        notify(connection, Notice("stop"))
    return connection.execute(_REMOVE, {"user_id": user_id, "today": now // DAY_MS}).rowcount > 0
