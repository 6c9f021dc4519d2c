"""Look-ups of whose token a request bears: alone, or together with a row of that user's.

Every request makes one of them. Together they are one statement: where several processes share the database, so that
no token may be remembered, a request is one round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from beray.server.db.auth import UserRow, user_row
from beray.server.db.connect import LookUp


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A live token that a request bears, and whose it is; times in milliseconds since the epoch.

    Attributes:
        expires_at: None: never.
        api_token_id: Which API token it is; None: a session's.
        last_used_at: When it was used last, as far as that was noted.
        session_id: Which session it is; None: an API token.
    """

    user: UserRow
    expires_at: int | None
    api_token_id: int | None
    last_used_at: int | None
    session_id: int | None = None


_USE: Final = "u.id, u.email, u.created_at, u.is_admin, {}"
_USE_COLUMNS: Final = 8
# The two kinds of token: what a use is made of, from where, and when it is alive.
_SESSION: Final = (
    _USE.format("s.expires_at, NULL, s.last_used_at, s.id"),
    "session s JOIN user_account u ON u.id = s.user_id",
    "s.token_hash = :token_hash AND s.revoked_at IS NULL AND s.expires_at > :now",
)
_API_TOKEN: Final = (
    _USE.format("a.expires_at, a.id, a.last_used_at, NULL"),
    "api_token a JOIN user_account u ON u.id = a.user_id",
    "a.token_hash = :token_hash AND (a.expires_at IS NULL OR a.expires_at > :now)",
)


class TokenLookUps:
    """Look-ups by a token's hash (`:token_hash`, alive at `:now`): by a session's, and by an API token's."""

    def __init__(self, *, also: str = "", joined: str = "") -> None:
        self.by_session, self.by_api_token = (
            LookUp(f"SELECT {columns}{also} FROM {source}{joined} WHERE {is_alive}")  # noqa: S608 - constants of this file and its users
            for columns, source, is_alive in (_SESSION, _API_TOKEN)
        )


class OwnRow:
    """A row that is looked up for its owner.

    Args:
        columns: Its columns, the first never NULL.
        table: Where it stands.
        condition: Which one it is; `{user_id}` where its owner's id stands.
    """

    def __init__(self, columns: Sequence[str], table: str, condition: str) -> None:
        named = ", ".join(f"{table}.{column}" for column in columns)
        of_known = condition.format(user_id=":user_id")
        self.of_known = LookUp(f"SELECT {named} FROM {table} WHERE {of_known}")  # noqa: S608 - constants of `db`
        joined = f" LEFT JOIN {table} ON {condition.format(user_id='u.id')}"
        self.of_token = TokenLookUps(also=f", {named}", joined=joined)


TOKEN: Final = TokenLookUps()


def token_use(row: Sequence[Any]) -> TokenUse:
    """The use that a row of `TokenLookUps` begins with."""
    return TokenUse(user_row(row), row[4], row[5], row[6], row[7])


def own_row(row: Sequence[Any]) -> Sequence[Any] | None:
    """What comes after the use in a row of `OwnRow.of_token`; None: the user has no such row."""
    own = row[_USE_COLUMNS:]
    return None if own[0] is None else own


def find_session(connection: Connection, token_hash: bytes, *, now: int) -> TokenUse | None:
    """The live session with this hash, within a transaction."""
    return _find(connection, TOKEN.by_session, token_hash, now)


def find_api_token(connection: Connection, token_hash: bytes, *, now: int) -> TokenUse | None:
    """The live API token with this hash, within a transaction."""
    return _find(connection, TOKEN.by_api_token, token_hash, now)


def _find(connection: Connection, look_up: LookUp, token_hash: bytes, now: int) -> TokenUse | None:
    row = connection.execute(text(look_up.sql), {"token_hash": token_hash, "now": now}).one_or_none()
    return None if row is None else token_use(row)
