"""API tokens: what a user gives a program instead of a password.

A token works wherever a session's does, until its owner deletes it, it expires, or the password is reset. It can't
make, list or delete tokens, so one that has leaked can neither outlive its deletion nor hide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from beray.server.audit import AuditTrail
from beray.server.auth.tokens import hash_token, new_api_token
from beray.server.clock import Clock
from beray.server.db import api_tokens as queries
from beray.server.db.api_tokens import ApiTokenRow
from beray.server.db.audit import insert_row
from beray.server.db.auth import UserRow, hold_user
from beray.server.db.connect import Database
from beray.server.db.logins import find_api_token, find_session
from beray.server.db.tables import ID_MOST
from beray.server.errors import Refused

MOST_TOKENS: Final = 100  # per user, so that a list is whole and short
LEAST_SECONDS: Final = 60
MOST_SECONDS: Final = 10 * 365 * 86_400  # who wants longer says "never"


@dataclass(frozen=True, slots=True)
class Login:
    """Who has logged in, and by which session: the hash of its token."""

    user: UserRow
    token_hash: bytes


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token that was just made; the secret is shown this once."""

    row: ApiTokenRow
    token: str


class ApiTokens:
    """Make, list and delete API tokens."""

    def __init__(self, database: Database, clock: Clock, trail: AuditTrail) -> None:
        self._database = database
        self._clock = clock
        self._trail = trail

    async def list_tokens(self, user: UserRow) -> Sequence[ApiTokenRow]:
        """The user's tokens, newest first; expired ones until the next is made."""
        return await self._database.read(lambda connection: queries.list_tokens(connection, user.id))

    async def create(self, login: Login, name: str, *, expires_in_seconds: int | None) -> NewApiToken:
        """Make a token.

        Args:
            login: Whose; the session must still be alive when the token is stored, or a password's reset, which ends
                both, would leave the token behind.
            name: For its owner to tell it by.
            expires_in_seconds: None: never.

        Raises:
            Refused: `too_many_api_tokens`, `not_authenticated`.
        """
        token = new_api_token()
        entry = self._trail.row("token.created", user=login.user)
        user_id, now = login.user.id, self._clock()
        expires_at = None if expires_in_seconds is None else now + expires_in_seconds * 1000

        def insert(connection: Connection) -> NewApiToken:
            hold_user(connection, user_id)
            if find_session(connection, login.token_hash, now=now) is None:
                raise Refused("not_authenticated")
            queries.purge_tokens(connection, user_id, now=now)
            if queries.count_tokens(connection, user_id) >= MOST_TOKENS:
                raise Refused("too_many_api_tokens", most=MOST_TOKENS)
            token_id = queries.insert_token(
                connection, user_id, token_hash=hash_token(token), name=name, created_at=now, expires_at=expires_at
            )
            insert_row(connection, replace(entry, resource=_told(token_id, name)))
            return NewApiToken(ApiTokenRow(token_id, name, now, expires_at), token)

        return await self._database.write(insert)

    async def delete(self, user: UserRow, token_id: int) -> None:
        """Delete a token: it is dead at once, on every node.

        Raises:
            Refused: `api_token_not_found`: there is none, or it is somebody else's.
        """
        entry = self._trail.row("token.deleted", user=user)

        def delete(connection: Connection) -> None:
            name = queries.delete_token(connection, user.id, token_id) if 0 < token_id <= ID_MOST else None
            if name is None:
                raise Refused("api_token_not_found", token_id=token_id)
            insert_row(connection, replace(entry, resource=_told(token_id, name)))

        await self._database.write(delete)

    async def delete_itself(self, token: str) -> None:
        """Log out with an API token: whoever finds one can at least end it.

        Raises:
            Refused: `not_authenticated`.
        """
        token_hash, now = hash_token(token), self._clock()
        entry = self._trail.row("token.deleted")

        def delete(connection: Connection) -> None:
            use = find_api_token(connection, token_hash, now=now)
            if use is None or use.api_token_id is None:
                raise Refused("not_authenticated")
            name = queries.delete_token(connection, use.user.id, use.api_token_id)
            if name is None:  # somebody was faster
                raise Refused("not_authenticated")
            told = _told(use.api_token_id, name)
            insert_row(connection, replace(entry, user_id=use.user.id, who=use.user.email, resource=told))

        await self._database.write(delete)


def _told(token_id: int, name: str) -> str:
    """What the audit log calls a token."""
    return f"{token_id} {name}"
