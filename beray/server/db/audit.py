"""SQL of the audit log: add, list, and the one way to forget what is old.

Triggers (migration 0004) refuse to change or delete a row, whoever asks. Only `prune` takes one of them away, within
the transaction in which it puts it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, literal, select, text

from beray.server.db.tables import audit, task

AuditRecord = Row[Any]
"""A row of `audit` with all its columns."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry to add; `at` in milliseconds since the epoch."""

    at: int
    action: str
    user_id: int | None = None
    who: str | None = None
    address: str | None = None
    task_id: int | None = None
    resource: str | None = None
    request_id: str | None = None

    def values(self) -> dict[str, Any]:
        """The row's columns."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True)
class AuditFilter:
    """Which entries a list shows: of one user (id or address), of one action, since a time, the newest so many."""

    user: str | None = None
    action: str | None = None
    since: int | None = None
    limit: int = 100


PRUNE_PAGE: Final = 10_000  # some 20 ms

_INSERT: Final = insert(audit)
_DISARM: Final = {
    "sqlite": ("DROP TRIGGER audit_no_delete",),
    "postgresql": ("ALTER TABLE audit DISABLE TRIGGER audit_no_change",),
}
_ARM: Final = {
    "sqlite": (
        "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    ),
    "postgresql": ("ALTER TABLE audit ENABLE TRIGGER audit_no_change",),
}
_FORGET: Final = text(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < :before ORDER BY id LIMIT :limit)"
)
_COUNT_OLD: Final = text("SELECT count(*) FROM audit WHERE at < :before")


def insert_row(connection: Connection, row: AuditRow) -> None:
    """Add an entry."""
    connection.execute(_INSERT, row.values())


def insert_if_foreign(connection: Connection, row: AuditRow) -> None:
    """Add an entry about `row.task_id` if that task is there and belongs to somebody else than `row.user_id`."""
    values = row.values()
    names = list(values)
    columns = [literal(values[name], audit.c[name].type).label(name) for name in names]
    found = select(*columns).select_from(task).where(task.c.id == row.task_id, task.c.user_id != row.user_id)
    connection.execute(_INSERT.from_select(names, found))


def list_rows(connection: Connection, wanted: AuditFilter) -> Sequence[AuditRecord]:
    """The newest entries that are wanted, oldest first."""
    query = select(audit).order_by(audit.c.id.desc()).limit(wanted.limit)
    if wanted.user is not None and wanted.user.isdecimal():
        query = query.where(audit.c.user_id == int(wanted.user))
    elif wanted.user is not None:
        query = query.where(audit.c.who == wanted.user)
    if wanted.action is not None:
        query = query.where(audit.c.action == wanted.action)
    if wanted.since is not None:
        query = query.where(audit.c.at >= wanted.since)
    return connection.execute(query).all()[::-1]


def count_old(connection: Connection, before: int) -> int:
    """How many entries are older than a time."""
    count: int = connection.execute(_COUNT_OLD, {"before": before}).scalar_one()
    return count


def prune(connection: Connection, before: int) -> int:
    """Forget entries that are older than a time, at most `PRUNE_PAGE` of them; how many.

    Others who write to the log wait meanwhile. Who calls it has said so in the log.
    """
    dialect = connection.dialect.name
    for statement in _DISARM[dialect]:
        connection.execute(text(statement))
    pruned = connection.execute(_FORGET, {"before": before, "limit": PRUNE_PAGE}).rowcount
    for statement in _ARM[dialect]:
        connection.execute(text(statement))
    return pruned
