"""SQL of API tokens; whose one is, stands in `logins.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from beray.server.db.notices import Notice, notify


@dataclass(frozen=True, slots=True)
class ApiTokenRow:
    """An API token, without what it is checked by; times in milliseconds since the epoch.

    Attributes:
        expires_at: None: never.
        last_used_at: When it was used last, as far as it was noted; None: not yet.
    """

    id: int
    name: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None = None


_LIST = text(
    "SELECT id, name, created_at, expires_at, last_used_at FROM api_token WHERE user_id = :user_id ORDER BY id DESC"
)
_INSERT = text(
    "INSERT INTO api_token (token_hash, user_id, name, created_at, expires_at)"
    " VALUES (:token_hash, :user_id, :name, :created_at, :expires_at) RETURNING id"
)
_COUNT = text("SELECT count(*) FROM api_token WHERE user_id = :user_id")
_PURGE = text("DELETE FROM api_token WHERE user_id = :user_id AND expires_at <= :now")
_DELETE = text("DELETE FROM api_token WHERE id = :token_id AND user_id = :user_id RETURNING name")
_DELETE_ALL = text("DELETE FROM api_token WHERE user_id = :user_id")
_NOTE_USE = text("UPDATE api_token SET last_used_at = :now WHERE id = :token_id")


def list_tokens(connection: Connection, user_id: int) -> Sequence[ApiTokenRow]:
    """The user's tokens, newest first; expired ones too."""
    return [ApiTokenRow(*row) for row in connection.execute(_LIST, {"user_id": user_id})]


def count_tokens(connection: Connection, user_id: int) -> int:
    """How many tokens the user has."""
    count: int = connection.execute(_COUNT, {"user_id": user_id}).scalar_one()
    return count


def insert_token(
    connection: Connection, user_id: int, *, token_hash: bytes, name: str, created_at: int, expires_at: int | None
) -> int:
    """Store a token; its id."""
    values = {
        "token_hash": token_hash,
        "user_id": user_id,
        "name": name,
        "created_at": created_at,
        "expires_at": expires_at,
    }
    token_id: int = connection.execute(_INSERT, values).scalar_one()
    return token_id


def purge_tokens(connection: Connection, user_id: int, *, now: int) -> None:
    """Delete the user's tokens that have expired."""
    connection.execute(_PURGE, {"user_id": user_id, "now": now})


def delete_token(connection: Connection, user_id: int, token_id: int) -> str | None:
    """Delete a token of the user's; its name, None if they have no such token."""
    name: str | None = connection.execute(_DELETE, {"user_id": user_id, "token_id": token_id}).scalar_one_or_none()
    if name is not None:
        notify(connection, Notice("login", user_id))
    return name


def delete_tokens(connection: Connection, user_id: int) -> None:
    """Delete every token of the user."""
    connection.execute(_DELETE_ALL, {"user_id": user_id})
    notify(connection, Notice("login", user_id))


def note_use(connection: Connection, token_id: int, *, now: int) -> None:
    """Note that the token is used."""
    connection.execute(_NOTE_USE, {"token_id": token_id, "now": now})
