"""SQL of webhooks: whom a user has us call, and the messages that wait to be taken.

A message is claimed before it is sent, with a lease: who dies with it leaves it to another process, or to its own
successor. What comes of an attempt counts only if nobody has claimed it since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, TextClause, text

from beray.server.db.notices import Notice, notify
from beray.server.db.processes import NOW

Fault = Literal["status", "redirect", "timeout", "unreachable", "tls", "not_http", "forbidden"]
"""Why a receiver has not taken a message."""

WebhookRecord = Row[Any]
"""A row of `webhook` with all its columns."""

_COLUMNS: Final = (
    "user_id, url, salt, made_at, old_salt, old_until, given_up, last_attempt_at, last_delivered_at, last_status,"
    " last_fault"
)
_FIND = text(f"SELECT {_COLUMNS} FROM webhook WHERE user_id = :user_id")  # noqa: S608 - only constants
_INSERT = text(
    "INSERT INTO webhook (user_id, salt, made_at) VALUES (:user_id, :salt, :now) ON CONFLICT (user_id) DO NOTHING"
)
_SET_URL = text("UPDATE webhook SET url = :url WHERE user_id = :user_id")
_ROTATE = text(
    "UPDATE webhook SET old_salt = salt, old_until = :old_until, salt = :salt, made_at = :now WHERE user_id = :user_id"
)
_COUNT = text("SELECT count(*) FROM webhook_delivery WHERE user_id = :user_id")
_DROP_OF_ACCOUNT = text(
    "DELETE FROM webhook_delivery WHERE user_id = :user_id"
    " AND task_id IN (SELECT id FROM task WHERE user_id = :user_id AND webhook_url IS NULL)"
)

_RECEIVER = text(
    "SELECT t.user_id, coalesce(t.webhook_url, w.url) FROM task t LEFT JOIN webhook w ON w.user_id = t.user_id"
    " WHERE t.id = :task_id AND t.deleted_at IS NULL"
)
_ENQUEUE = text(
    "INSERT INTO webhook_delivery (user_id, task_id, message_id, body, created_at, due_at)"
    " VALUES (:user_id, :task_id, :message_id, :body, :now, :now)"
)
_DROP_OLDEST = text(
    "DELETE FROM webhook_delivery WHERE user_id = :user_id"
    " AND id <= (SELECT id FROM webhook_delivery WHERE user_id = :user_id ORDER BY id DESC LIMIT 1 OFFSET :most)"
)
_ADD_GIVEN_UP = text("UPDATE webhook SET given_up = given_up + :count WHERE user_id = :user_id")


def _due(clock: str) -> TextClause:
    # From one user to the next by the index: DISTINCT would read each of a backlog's messages at every look.
    return text(
        "WITH RECURSIVE u(user_id) AS (SELECT min(user_id) FROM webhook_delivery UNION ALL"  # noqa: S608 - only constants
        " SELECT (SELECT min(y.user_id) FROM webhook_delivery y WHERE y.user_id > u.user_id) FROM u"
        " WHERE u.user_id IS NOT NULL),"
        " oldest(id) AS (SELECT (SELECT x.id FROM webhook_delivery x WHERE x.user_id = u.user_id"
        f" AND x.due_at <= :now AND (x.leased_until IS NULL OR x.leased_until <= {clock})"
        " ORDER BY x.due_at, x.id LIMIT 1) FROM u)"
        " SELECT d.id, d.user_id, coalesce(t.webhook_url, w.url)"
        " FROM oldest JOIN webhook_delivery d ON d.id = oldest.id"
        " JOIN task t ON t.id = d.task_id LEFT JOIN webhook w ON w.user_id = d.user_id"
        " ORDER BY d.due_at LIMIT :limit"
    )


def _claim(clock: str) -> TextClause:
    return text(
        f"UPDATE webhook_delivery SET attempts = attempts + 1, leased_until = {clock} + :lease"  # noqa: S608 - likewise
        f" WHERE id = :id AND due_at <= :now AND (leased_until IS NULL OR leased_until <= {clock})"
        " RETURNING id, user_id, task_id, message_id, body, attempts"
    )


# Where several processes send, leases are judged by the clock that they share; an only one may use its own.
_DUE: Final = {"sqlite": _due(":now"), "postgresql": _due(NOW)}
_CLAIM: Final = {"sqlite": _claim(":now"), "postgresql": _claim(NOW)}
_SIGNING = text(
    "SELECT coalesce(t.webhook_url, w.url), w.salt, w.old_salt, w.old_until FROM task t"
    " JOIN webhook w ON w.user_id = t.user_id WHERE t.id = :task_id AND t.deleted_at IS NULL"
)
_NEXT_DUE = text("SELECT min(due_at) FROM webhook_delivery WHERE due_at > :now")
_RELEASE = text("UPDATE webhook_delivery SET leased_until = NULL WHERE leased_until IS NOT NULL")
_REMOVE = text("DELETE FROM webhook_delivery WHERE id = :id AND attempts = :attempts")
_POSTPONE = text(
    "UPDATE webhook_delivery SET leased_until = NULL, due_at = :due_at WHERE id = :id AND attempts = :attempts"
)
_NOTE = text(
    "UPDATE webhook SET last_attempt_at = :now, last_status = :status, last_fault = :fault,"
    " last_delivered_at = CASE WHEN CAST(:fault AS VARCHAR(16)) IS NULL THEN :now ELSE last_delivered_at END,"
    " given_up = given_up + :given_up WHERE user_id = :user_id"
)


@dataclass(frozen=True, slots=True)
class Due:
    """A message that may be sent now; no URL: its receiver has been taken away."""

    id: int
    user_id: int
    url: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that this process is to send.

    Attributes:
        attempts: How many have been begun, this one included.
        salts: Of the secrets that sign it, the newest first.
    """

    id: int
    user_id: int
    task_id: int
    message_id: str
    body: bytes
    attempts: int
    url: str
    salts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt.

    Attributes:
        status: What the receiver answered; None: nothing.
        fault: Why it has not taken the message; None: it has.
        due_at: When it is tried again; None: never.
    """

    status: int | None
    fault: Fault | None
    due_at: int | None = None


# The account's


def find_webhook(connection: Connection, user_id: int) -> WebhookRecord | None:
    """The user's row; None: they have never had a webhook."""
    return connection.execute(_FIND, {"user_id": user_id}).one_or_none()


def ensure_webhook(connection: Connection, user_id: int, *, salt: bytes, now: int) -> bool:
    """Make the user's row, with the salt of a secret, unless there is one; whether it was made."""
    return connection.execute(_INSERT, {"user_id": user_id, "salt": salt, "now": now}).rowcount == 1


def set_url(connection: Connection, user_id: int, url: str | None) -> None:
    """Call that URL from now on, with what waits too; with None what waits for it is dropped."""
    connection.execute(_SET_URL, {"user_id": user_id, "url": url})
    if url is None:
        connection.execute(_DROP_OF_ACCOUNT, {"user_id": user_id})


def rotate_salt(connection: Connection, user_id: int, *, salt: bytes, old_until: int, now: int) -> None:
    """Sign with another secret; the one before is good until a time, and the one before that no more."""
    connection.execute(_ROTATE, {"user_id": user_id, "salt": salt, "old_until": old_until, "now": now})


def count_pending(connection: Connection, user_id: int) -> int:
    """Messages of the user that wait."""
    return int(connection.execute(_COUNT, {"user_id": user_id}).scalar_one())


# Messages


def find_receiver(connection: Connection, task_id: int) -> tuple[int, str | None] | None:
    """The task's user, and the URL that is called about it (None: nobody); None: there is no such task."""
    row = connection.execute(_RECEIVER, {"task_id": task_id}).one_or_none()
    return None if row is None else (row[0], row[1])


def enqueue(
    connection: Connection, *, user_id: int, task_id: int, message_id: str, body: bytes, now: int, most: int
) -> None:
    """Put a message where it waits to be sent; above `most` of a user, the oldest make room and are given up."""
    values = {"user_id": user_id, "task_id": task_id, "message_id": message_id, "body": body, "now": now}
    connection.execute(_ENQUEUE, values)
    dropped = connection.execute(_DROP_OLDEST, {"user_id": user_id, "most": most}).rowcount
    if dropped:
        connection.execute(_ADD_GIVEN_UP, {"user_id": user_id, "count": dropped})
    notify(connection, Notice("webhook"))


def list_due(connection: Connection, *, now: int, limit: int) -> list[Due]:
    """The message of each user that has been due for longest, those first."""
    rows = connection.execute(_DUE[connection.dialect.name], {"now": now, "limit": limit})
    return [Due(*row) for row in rows]


def next_due(connection: Connection, *, now: int) -> int | None:
    """When the next message becomes due that is not yet; None: none waits for its time."""
    at: int | None = connection.execute(_NEXT_DUE, {"now": now}).scalar_one()
    return at


def claim(connection: Connection, ids: Sequence[int], *, now: int, lease_ms: int) -> list[Claimed]:
    """Take those of the messages that nobody else has taken; what has no receiver any more is dropped."""
    claimed = []
    for each in ids:
        values = {"id": each, "now": now, "lease": lease_ms}
        row = connection.execute(_CLAIM[connection.dialect.name], values).one_or_none()
        if row is None:
            continue
        found = connection.execute(_SIGNING, {"task_id": row.task_id}).one_or_none()
        if found is None or found[0] is None:
            connection.execute(_REMOVE, {"id": row.id, "attempts": row.attempts})
            continue
        url, salt, old_salt, old_until = found
        old = (old_salt,) if old_salt is not None and old_until > now else ()
        claimed.append(Claimed(**row._mapping, url=url, salts=(salt, *old)))
    return claimed


def settle(connection: Connection, message: Claimed, result: Attempted, now: int) -> bool:
    """Keep what came of an attempt; False if somebody else has the message by now, or it is gone."""
    is_over = result.due_at is None
    found = {"id": message.id, "attempts": message.attempts}
    change = _REMOVE if is_over else _POSTPONE
    if connection.execute(change, found if is_over else {**found, "due_at": result.due_at}).rowcount == 0:
        return False
    given_up = int(is_over and result.fault is not None)
    noted = {"user_id": message.user_id, "status": result.status, "fault": result.fault, "given_up": given_up}
    connection.execute(_NOTE, {**noted, "now": now})
    return True


def release_all(connection: Connection) -> None:
    """Nobody sends anything; said by the one process of a database, which has just begun."""
    connection.execute(_RELEASE)
