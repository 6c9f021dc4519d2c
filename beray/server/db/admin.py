"""SQL of what admins see: how much there is of everything, all users, all tasks without what is private in them, the
audit log; and of who is an admin.

Nothing here reads all tasks or the whole log: their rows are long, or many. Each statement finds its rows by an index,
and where none helps, a page looks at so many rows at most and says from where the next one goes on. A plus
before a column keeps SQLite, which has no statistics, from taking an index of it that would not help.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Table, bindparam, select, text, update

from beray.protocol.status import ENDED, STATUSES, Status
from beray.server.db.audit import AuditRecord
from beray.server.db.auth import UserRow, user_row
from beray.server.db.notices import Notice, notify
from beray.server.db.tables import ID_MOST, audit, task, user
from beray.server.db.usage import UsedSums, sum_of_all, sums_of_users

Row = TypeVar("Row")

TASKS_LOOKED_AT: Final = 10_000  # for one page; some 25 ms
ENTRIES_LOOKED_AT: Final = 100_000  # likewise, of the audit log


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows by id descending; `next_before` is the id below which the next page begins, None if there is none.

    A page of what no index finds can have fewer rows than were asked for, or none, and a next one.
    """

    rows: Sequence[Row]
    next_before: int | None


# Who there is


@dataclass(frozen=True)
class UserFilter:
    """Which users a page shows; `search` is a part of their address."""

    limit: int
    before: int = ID_MOST
    search: str | None = None
    is_only_admins: bool = False


class SeenUser(NamedTuple):
    """A user as admins see them; times in milliseconds since the epoch.

    Attributes:
        user: Who it is.
        tasks: How many they have.
        active_tasks: How many of them have not ended.
        stored_bytes: What their files take, as far as they have been measured.
        last_login_at: When the latest session began that is still known; None: none is.
        used_today: By all their tasks.
    """

    user: UserRow
    tasks: int
    active_tasks: int
    stored_bytes: int
    last_login_at: int | None
    used_today: UsedSums


_USER = select(user.c.id, user.c.email, user.c.created_at, user.c.is_admin).where(user.c.deleted_at.is_(None))


def list_users(connection: Connection, wanted: UserFilter, day: int) -> Page[SeenUser]:
    """A page of users, with what they have used on the day."""
    query = _USER.where(user.c.id < wanted.before).order_by(user.c.id.desc()).limit(wanted.limit + 1)
    if wanted.search:
        query = query.where(user.c.email.contains(wanted.search.lower(), autoescape=True))
    if wanted.is_only_admins:
        query = query.where(user.c.is_admin.is_(True))
    page = _page([user_row(row) for row in connection.execute(query)], wanted.limit)
    return Page(_seen(connection, page.rows, day), page.next_before)


def get_user(connection: Connection, user_id: int, day: int) -> SeenUser | None:
    """One user; None: there is none."""
    row = connection.execute(_USER.where(user.c.id == user_id)).one_or_none()
    return None if row is None else _seen(connection, [user_row(row)], day)[0]


_OF_USERS: Final[BindParameter[Any]] = bindparam("user_ids", expanding=True)
_STORED: Final = text(  # all of it stands in one index
    "SELECT user_id, count(*), CAST(coalesce(sum(stored_bytes), 0) AS BIGINT) FROM task"
    " WHERE user_id IN :user_ids GROUP BY user_id"
).bindparams(_OF_USERS)
_HIDDEN: Final = text("SELECT +user_id, count(*) FROM task WHERE deleted_at > 0 GROUP BY 1")
_ACTIVE: Final = "FROM task WHERE finished_at IS NULL AND +deleted_at IS NULL"
_ACTIVE_OF_EACH: Final = text(f"SELECT +user_id, count(*) {_ACTIVE} GROUP BY 1")
_LOGGED_IN: Final = text(
    "SELECT user_id, max(created_at) FROM session WHERE user_id IN :user_ids GROUP BY user_id"
).bindparams(_OF_USERS)


def _seen(connection: Connection, users: Sequence[UserRow], day: int) -> Sequence[SeenUser]:
    ids = [each.id for each in users]
    stored = {row[0]: (row[1], int(row[2])) for row in connection.execute(_STORED, {"user_ids": ids})}
    hidden, active = (_counts(connection.execute(query)) for query in (_HIDDEN, _ACTIVE_OF_EACH))
    logged_in = _counts(connection.execute(_LOGGED_IN, {"user_ids": ids}))
    used = sums_of_users(connection, ids, day)
    return [
        SeenUser(
            user=each,
            tasks=stored.get(each.id, (0, 0))[0] - hidden.get(each.id, 0),
            active_tasks=active.get(each.id, 0),
            stored_bytes=stored.get(each.id, (0, 0))[1],
            last_login_at=logged_in.get(each.id),
            used_today=used.get(each.id, UsedSums()),
        )
        for each in users
    ]


# Who is an admin

_ADMINS: Final = text("SELECT id FROM user_account WHERE is_admin AND deleted_at IS NULL")
_HAS_PASSWORD: Final = text("SELECT password_hash IS NOT NULL FROM user_account WHERE id = :user_id")


def list_admins(connection: Connection) -> Sequence[int]:
    """The ids of the admins."""
    return connection.execute(_ADMINS).scalars().all()


def has_password(connection: Connection, user_id: int) -> bool:
    """Whether the user can log in by a password."""
    return bool(connection.execute(_HAS_PASSWORD, {"user_id": user_id}).scalar_one_or_none())


def set_admin(connection: Connection, user_id: int, *, is_admin: bool) -> bool:
    """Give the user the role of an admin, or take it away, and have all forget what they remember of the user.

    Returns:
        Whether it was otherwise before.
    """
    is_other = user.c.id == user_id, user.c.deleted_at.is_(None), user.c.is_admin.is_(not is_admin)
    is_changed = connection.execute(update(user).where(*is_other).values(is_admin=is_admin)).rowcount == 1
    if is_changed:
        notify(connection, Notice("login", user_id))
    return is_changed


# What they do


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a page shows; without statuses those that have not ended."""

    limit: int
    before: int = ID_MOST
    statuses: tuple[Status, ...] = ()
    user_id: int | None = None


class SeenTask(NamedTuple):
    """A task as admins see it, without what was said in it; times in milliseconds since the epoch, `usage` is JSON."""

    id: int
    user_id: int
    email: str
    status: Status
    created_at: int
    started_at: int | None
    finished_at: int | None
    model: str | None
    usage: str
    run: int
    attempt: int
    stop_requested: bool


# Not by a join, which SQLite might begin at the users.
_EMAIL: Final = select(user.c.email).where(user.c.id == task.c.user_id).scalar_subquery().label("email")
_TASK_COLUMNS: Final = [_EMAIL if name == "email" else task.c[name] for name in SeenTask._fields]
_IS_THERE: Final = text("+task.deleted_at IS NULL")


def list_tasks(connection: Connection, wanted: TaskFilter) -> Page[SeenTask]:
    """A page of everybody's tasks."""
    statuses = wanted.statuses or tuple(status for status in STATUSES if status not in ENDED)
    owned = [] if wanted.user_id is None else [task.c.user_id == wanted.user_id]
    query = select(*_TASK_COLUMNS).where(_IS_THERE, task.c.id < wanted.before, task.c.status.in_(statuses), *owned)
    floor = None
    if ENDED.isdisjoint(statuses):
        query = query.where(task.c.finished_at.is_(None))  # by the index, in which they stand together
    else:
        floor = _floor(connection, task, wanted.before, owned, most=TASKS_LOOKED_AT)
        query = query.where(task.c.id > floor)
    rows = connection.execute(query.order_by(task.c.id.desc()).limit(wanted.limit + 1))
    return _page([SeenTask._make(row) for row in rows], wanted.limit, floor=floor)


_OWNER: Final = text(
    "SELECT u.id, u.email, u.created_at, u.is_admin FROM task t JOIN user_account u ON u.id = t.user_id"
    " WHERE t.id = :task_id AND t.deleted_at IS NULL"
)


def find_owner(connection: Connection, task_id: int) -> UserRow | None:
    """Whose the task is; None: there is no such task."""
    row = connection.execute(_OWNER, {"task_id": task_id}).one_or_none()
    return None if row is None else user_row(row)


# The audit log


@dataclass(frozen=True)
class EntryFilter:
    """Which entries of the audit log a page shows."""

    limit: int
    before: int = ID_MOST
    user_id: int | None = None
    action: str | None = None


def list_entries(connection: Connection, wanted: EntryFilter) -> Page[AuditRecord]:
    """A page of the audit log, newest first."""
    query = select(audit).where(audit.c.id < wanted.before)
    floor = None
    if wanted.user_id is not None or wanted.action is not None:
        floor = _floor(connection, audit, wanted.before, [], most=ENTRIES_LOOKED_AT)
        query = query.where(audit.c.id > floor)
    if wanted.user_id is not None:
        query = query.where(audit.c.user_id == wanted.user_id)
    if wanted.action is not None:
        query = query.where(audit.c.action == wanted.action)
    rows = connection.execute(query.order_by(audit.c.id.desc()).limit(wanted.limit + 1)).all()
    return _page(rows, wanted.limit, floor=floor)


# How much there is


@dataclass(frozen=True)
class Totals:
    """How much there is of everything; times in milliseconds since the epoch.

    Attributes:
        users: Accounts.
        active: Tasks that have not ended, by their status.
        ended: Tasks that have.
        ended_today: Those that have since the day began, by their status.
        queued: Tasks that wait for a worker: queued ones that are not held.
        oldest_queued_at: Since when the first of them waits.
        stored_bytes: What the tasks' files take, as far as they have been measured.
        database_bytes: What the database takes.
        used_today: By all tasks.
    """

    users: int
    active: Mapping[Status, int]
    ended: int
    ended_today: Mapping[Status, int]
    queued: int
    oldest_queued_at: int | None
    stored_bytes: int
    database_bytes: int
    used_today: UsedSums


_COUNT_USERS: Final = text("SELECT count(*) FROM user_account WHERE deleted_at IS NULL")
_ACTIVE_BY_STATUS: Final = text(f"SELECT status, count(*) {_ACTIVE} GROUP BY status")
_QUEUED: Final = text(f"SELECT count(*), min(updated_at) {_ACTIVE} AND status = 'queued' AND +held_until IS NULL")
_COUNT_ENDED: Final = text("SELECT count(*) FROM task WHERE finished_at > 0")
_COUNT_HIDDEN_ENDED: Final = text("SELECT count(*) FROM task WHERE deleted_at > 0 AND +finished_at > 0")
_ENDED_SINCE: Final = text(
    "SELECT status, count(*) FROM task WHERE finished_at >= :since AND +deleted_at IS NULL GROUP BY status"
)
_ALL_STORED: Final = text("SELECT CAST(coalesce(sum(stored_bytes), 0) AS BIGINT) FROM task")
_DATABASE_BYTES: Final = {
    "sqlite": text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"),
    "postgresql": text("SELECT pg_database_size(current_database())"),
}


def count_all(connection: Connection, *, day: int, since: int) -> Totals:
    """How much there is, and of the day that began at `since`."""
    queued, oldest = connection.execute(_QUEUED).one()
    hidden_ended: int = connection.execute(_COUNT_HIDDEN_ENDED).scalar_one()
    return Totals(
        users=connection.execute(_COUNT_USERS).scalar_one(),
        active=_counts(connection.execute(_ACTIVE_BY_STATUS)),
        ended=connection.execute(_COUNT_ENDED).scalar_one() - hidden_ended,
        ended_today=_counts(connection.execute(_ENDED_SINCE, {"since": since})),
        queued=queued,
        oldest_queued_at=oldest,
        stored_bytes=int(connection.execute(_ALL_STORED).scalar_one()),
        database_bytes=int(connection.execute(_DATABASE_BYTES[connection.dialect.name]).scalar_one()),
        used_today=sum_of_all(connection, day),
    )


# Pages


def _floor(
    connection: Connection, table: Table, before: int, conditions: Sequence[ColumnElement[bool]], *, most: int
) -> int:
    """The id above which a page looks, so that it looks at `most` rows; 0: there are no more."""
    ids = select(table.c.id).where(table.c.id < before, *conditions).order_by(table.c.id.desc())
    floor: int | None = connection.execute(ids.offset(most).limit(1)).scalar_one_or_none()
    return floor or 0


def _page(rows: Sequence[Any], limit: int, *, floor: int | None = None) -> Page[Any]:
    """The page of `rows`, of which there is one more if there is a next page; nothing was looked for below `floor`."""
    if len(rows) > limit:
        return Page(rows[:limit], rows[limit - 1].id)
    return Page(rows, floor + 1 if floor else None)


def _counts(rows: Any) -> dict[Any, int]:
    return {row[0]: row[1] for row in rows}
