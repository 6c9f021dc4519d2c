"""SQL of accounts: users, sessions, verification codes, and the counters that limit rates.

Whose a session is, is looked up in `logins.py`. Whatever ends one says so by a notice, which makes whoever remembers it
forget it. Whatever must hold under a race (one account per address, one use per code, five tries per code, no uncounted
hit) is one statement whose result tells who won.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from beray.server.db.notices import Notice, notify


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user. `created_at` in milliseconds since the epoch."""

    id: int
    email: str
    created_at: int
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session to store: the SHA-256 of its token, times in milliseconds since the epoch, and where it is begun."""

    token_hash: bytes
    created_at: int
    expires_at: int
    user_agent: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that lives; `last_used_at` as far as that was noted."""

    id: int
    created_at: int
    expires_at: int
    last_used_at: int | None
    user_agent: str | None
    address: str | None
    is_current: bool


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A verification code to store, as its HMAC; times in milliseconds since the epoch."""

    email: str
    purpose: str
    code_hmac: bytes
    created_at: int
    expires_at: int


# users

_USER_BY_EMAIL = text("SELECT id, email, created_at, is_admin, password_hash FROM user_account WHERE email = :email")
_INSERT_USER = text(
    "INSERT INTO user_account (email, password_hash, created_at) VALUES (:email, :password_hash, :created_at)"
    " ON CONFLICT (email) DO NOTHING RETURNING id"
)
_SET_HASH = text(
    "UPDATE user_account SET password_hash = :password_hash WHERE email = :email"
    " RETURNING id, email, created_at, is_admin"
)
_HASH_OF_USER = text("SELECT password_hash FROM user_account WHERE id = :user_id")
_HASH_OF_USER_HELD = text("SELECT password_hash FROM user_account WHERE id = :user_id FOR SHARE")
_HOLD_USER = text("SELECT 1 FROM user_account WHERE id = :user_id FOR NO KEY UPDATE")
_REPLACE_HASH = text("UPDATE user_account SET password_hash = :new WHERE id = :user_id AND password_hash = :old")


def user_row(columns: Sequence[Any]) -> UserRow:
    """The user that a row begins with: `id`, `email`, `created_at`, `is_admin` (0 or 1 on SQLite)."""
    return UserRow(columns[0], columns[1], columns[2], bool(columns[3]))


def find_user(connection: Connection, email: str) -> tuple[UserRow, str | None] | None:
    """The user with this address and the hash of their password (None: cannot log in by password)."""
    row = connection.execute(_USER_BY_EMAIL, {"email": email}).one_or_none()
    return None if row is None else (user_row(row), row[4])


def insert_user(connection: Connection, email: str, *, password_hash: str | None, now: int) -> UserRow | None:
    """A new user; None if the address is taken."""
    values = {"email": email, "password_hash": password_hash, "created_at": now}
    user_id = connection.execute(_INSERT_USER, values).scalar_one_or_none()
    return None if user_id is None else UserRow(user_id, email, now)


def replace_password_hash(connection: Connection, user_id: int, *, old: str, new: str) -> None:
    """Store `new`, unless the password has been changed meanwhile."""
    connection.execute(_REPLACE_HASH, {"user_id": user_id, "old": old, "new": new})


def set_password_hash(connection: Connection, email: str, password_hash: str) -> UserRow | None:
    """Store another password's hash; None if nobody has this address."""
    row = connection.execute(_SET_HASH, {"email": email, "password_hash": password_hash}).one_or_none()
    return None if row is None else user_row(row)


def has_password_hash(connection: Connection, user_id: int, password_hash: str | None) -> bool:
    """Whether the user's password still has this hash; where several processes write, it is kept so until the commit.

    What is begun by a password in the same transaction ends with it when another process resets that password.
    """
    is_shared = connection.dialect.name == "postgresql"
    query = _HASH_OF_USER_HELD if is_shared else _HASH_OF_USER
    stored: str | None = connection.execute(query, {"user_id": user_id}).scalar_one_or_none()
    return stored == password_hash


def hold_user(connection: Connection, user_id: int) -> None:
    """Have other processes wait that hold this user, or change their password (SQLite has one writer anyway)."""
    if connection.dialect.name == "postgresql":
        connection.execute(_HOLD_USER, {"user_id": user_id})


# sessions

_INSERT_SESSION = text(
    "INSERT INTO session (token_hash, user_id, created_at, expires_at, last_used_at, user_agent, address)"
    " VALUES (:token_hash, :user_id, :created_at, :expires_at, :created_at, :user_agent, :address)"
)
_REVOKE_SESSION = text(
    "UPDATE session SET revoked_at = :now, user_agent = NULL, address = NULL"
    " WHERE token_hash = :token_hash AND revoked_at IS NULL AND expires_at > :now RETURNING user_id"
)
_PURGE_SESSIONS = text(
    "DELETE FROM session WHERE user_id = :user_id AND (revoked_at IS NOT NULL OR expires_at <= :now OR id <= "
    "(SELECT id FROM session WHERE user_id = :user_id ORDER BY id DESC LIMIT 1 OFFSET :most))"
)
_DELETE_SESSIONS = text("DELETE FROM session WHERE user_id = :user_id")
_LIVES = "revoked_at IS NULL AND expires_at > :now"
_LIST_SESSIONS = text(
    "SELECT id, created_at, expires_at, last_used_at, user_agent, address, token_hash = :current AS is_current"  # noqa: S608 - only constants
    f" FROM session WHERE user_id = :user_id AND {_LIVES} ORDER BY id DESC"
)
_DELETE_SESSION = text(
    f"DELETE FROM session WHERE id = :session_id AND user_id = :user_id AND {_LIVES} RETURNING token_hash"  # noqa: S608 - likewise
)
_COUNT_OTHERS = text(
    f"SELECT count(*) FROM session WHERE user_id = :user_id AND token_hash != :kept AND {_LIVES}"  # noqa: S608 - likewise
)
_DELETE_OTHERS = text("DELETE FROM session WHERE user_id = :user_id AND token_hash != :kept")
_NOTE_SESSION_USE = text("UPDATE session SET last_used_at = :now WHERE id = :session_id")


def insert_session(connection: Connection, user_id: int, session: SessionRow) -> None:
    """Begin a session."""
    values = {
        "token_hash": session.token_hash,
        "user_id": user_id,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
        "user_agent": session.user_agent,
        "address": session.address,
    }
    connection.execute(_INSERT_SESSION, values)


def revoke_session(connection: Connection, token_hash: bytes, *, now: int) -> bool:
    """End the session, and forget where it began; False if it was not alive."""
    values = {"token_hash": token_hash, "now": now}
    user_id: int | None = connection.execute(_REVOKE_SESSION, values).scalar_one_or_none()
    if user_id is not None:
        notify(connection, Notice("login", user_id))
    return user_id is not None


def purge_sessions(connection: Connection, user_id: int, *, now: int, most: int) -> None:
    """Delete the user's ended sessions, and the oldest of those beyond `most`."""
    if connection.execute(_PURGE_SESSIONS, {"user_id": user_id, "now": now, "most": most}).rowcount:
        notify(connection, Notice("login", user_id))


def delete_sessions(connection: Connection, user_id: int) -> None:
    """Delete every session of the user."""
    connection.execute(_DELETE_SESSIONS, {"user_id": user_id})
    notify(connection, Notice("login", user_id))


def list_sessions(connection: Connection, user_id: int, current: bytes, *, now: int) -> Sequence[OpenSession]:
    """The user's sessions that live, newest first; `current` is the hash of the token that asks."""
    rows = connection.execute(_LIST_SESSIONS, {"user_id": user_id, "current": current, "now": now})
    return [
        OpenSession(
            id=row.id,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            user_agent=row.user_agent,
            address=row.address,
            is_current=bool(row.is_current),
        )
        for row in rows
    ]


def delete_session(connection: Connection, user_id: int, session_id: int, *, now: int) -> bytes | None:
    """Delete one session of the user; the hash of its token, None if they have none such that lives."""
    values = {"user_id": user_id, "session_id": session_id, "now": now}
    token_hash: bytes | None = connection.execute(_DELETE_SESSION, values).scalar_one_or_none()
    if token_hash is not None:
        notify(connection, Notice("login", user_id))
    return token_hash


def delete_other_sessions(connection: Connection, user_id: int, kept: bytes, *, now: int) -> int:
    """Delete every session of the user but the one whose token has this hash; how many of them lived."""
    values = {"user_id": user_id, "kept": kept}
    count: int = connection.execute(_COUNT_OTHERS, {**values, "now": now}).scalar_one()
    connection.execute(_DELETE_OTHERS, values)
    notify(connection, Notice("login", user_id))
    return count


def note_session_use(connection: Connection, session_id: int, *, now: int) -> None:
    """Note that the session is used."""
    connection.execute(_NOTE_SESSION_USE, {"session_id": session_id, "now": now})


# verification codes

_PURGE_CODES = text("DELETE FROM verification_code WHERE expires_at <= :now")
_PUT_CODE = text(
    "INSERT INTO verification_code (email, purpose, code_hmac, attempts, created_at, expires_at)"
    " VALUES (:email, :purpose, :code_hmac, 0, :created_at, :expires_at)"
    " ON CONFLICT (email, purpose) DO UPDATE SET code_hmac = excluded.code_hmac, attempts = 0,"
    " created_at = excluded.created_at, expires_at = excluded.expires_at"
)
_TRY_CODE = text(
    "UPDATE verification_code SET attempts = attempts + 1"
    " WHERE email = :email AND purpose = :purpose AND attempts < :most AND expires_at > :now RETURNING code_hmac"
)
_USE_CODE = text(
    "DELETE FROM verification_code"
    " WHERE email = :email AND purpose = :purpose AND code_hmac = :code_hmac RETURNING email"
)


def put_code(connection: Connection, code: CodeRow) -> None:
    """Store a code in place of the address' older one; forget all that have expired."""
    connection.execute(_PURGE_CODES, {"now": code.created_at})
    values = {
        "email": code.email,
        "purpose": code.purpose,
        "code_hmac": code.code_hmac,
        "created_at": code.created_at,
        "expires_at": code.expires_at,
    }
    connection.execute(_PUT_CODE, values)


def try_code(connection: Connection, email: str, purpose: str, *, now: int, most: int) -> bytes | None:
    """Count a try and give the HMAC to compare with; None if there is no live code or its `most` tries are spent."""
    values = {"email": email, "purpose": purpose, "now": now, "most": most}
    code_hmac: bytes | None = connection.execute(_TRY_CODE, values).scalar_one_or_none()
    return code_hmac


def use_code(connection: Connection, email: str, purpose: str, code_hmac: bytes) -> bool:
    """Use the code up; False if it has been used, or replaced by a newer one."""
    values = {"email": email, "purpose": purpose, "code_hmac": code_hmac}
    return connection.execute(_USE_CODE, values).first() is not None


# counters

_LOCK_COUNTERS = text("SELECT pg_advisory_xact_lock(:key)")
_COUNTERS_KEY = 0x42655262  # "BeRb"; "BeRa" is that of migrations
_PURGE_COUNTERS = text("DELETE FROM rate_counter WHERE expires_at <= :now")
_ADD_TO_COUNTER = text(
    "INSERT INTO rate_counter (key, count, started_at, expires_at) VALUES (:key, :amount, :now, :expires_at)"
    " ON CONFLICT (key) DO UPDATE SET"
    " count = CASE WHEN rate_counter.expires_at <= :now THEN 0 ELSE rate_counter.count END + :amount,"
    " started_at = CASE WHEN rate_counter.expires_at <= :now THEN :now ELSE rate_counter.started_at END,"
    " expires_at = CASE WHEN rate_counter.expires_at <= :now THEN :expires_at ELSE rate_counter.expires_at END"
    " RETURNING count"
)
_TAKE_FROM_COUNTER = text(
    "UPDATE rate_counter SET count = count - 1 WHERE key = :key AND count > 0 AND expires_at > :now"
)
_READ_COUNTER = text("SELECT count, expires_at FROM rate_counter WHERE key = :key AND expires_at > :now")
_DELETE_COUNTER = text("DELETE FROM rate_counter WHERE key = :key")
_DELETE_COUNTERS = text("DELETE FROM rate_counter")


def lock_counters(connection: Connection) -> None:
    """Let no other process change counters before the transaction ends (SQLite has one writer anyway).

    Groups of many hits would take the counters' rows in any order, and a flood could have two processes end each
    other's deadlocks all the time, a second each.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_COUNTERS, {"key": _COUNTERS_KEY})


def purge_counters(connection: Connection, *, now: int) -> None:
    """Delete the counters whose window is over."""
    connection.execute(_PURGE_COUNTERS, {"now": now})


def add_to_counter(connection: Connection, key: str, *, amount: int, now: int, expires_at: int) -> int:
    """Add to the counter and give its value; the first hit of a window begins it, to end at `expires_at`."""
    values = {"key": key, "amount": amount, "now": now, "expires_at": expires_at}
    count: int = connection.execute(_ADD_TO_COUNTER, values).scalar_one()
    return count


def take_from_counter(connection: Connection, key: str, *, now: int) -> None:
    """Take one hit back."""
    connection.execute(_TAKE_FROM_COUNTER, {"key": key, "now": now})


def read_counter(connection: Connection, key: str, *, now: int) -> tuple[int, int]:
    """The counter's value and when its window ends; (0, now) if there is none."""
    row = connection.execute(_READ_COUNTER, {"key": key, "now": now}).one_or_none()
    return (0, now) if row is None else (row[0], row[1])


def delete_counter(connection: Connection, key: str) -> None:
    """Forget the counter."""
    connection.execute(_DELETE_COUNTER, {"key": key})


def delete_counters(connection: Connection) -> int:
    """Forget every counter; how many there were."""
    return connection.execute(_DELETE_COUNTERS).rowcount
