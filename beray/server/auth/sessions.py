"""Where a user is logged in: the sessions that live, shown to their owner, who can end each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from beray.server.audit import AuditTrail, current_caller
from beray.server.auth.api_tokens import Login
from beray.server.clock import Clock
from beray.server.db import auth as queries
from beray.server.db.audit import insert_row
from beray.server.db.auth import OpenSession
from beray.server.db.connect import Database
from beray.server.db.tables import ID_MOST
from beray.server.errors import Refused

AGENT_CHARACTERS: Final = 300  # browsers' names have some 120


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a session is begun: the program, as it calls itself, and its address."""

    user_agent: str | None = None
    address: str | None = None


def session_origin() -> Origin:
    """Where the request that is being answered comes from; call it in the request's own task, not in a query."""
    caller = current_caller.get()
    return Origin() if caller is None else Origin(shown_agent(caller.user_agent), caller.address)


def shown_agent(sent: bytes | None) -> str | None:
    """A `User-Agent` as it may be shown: short, and printable."""
    said = "".join(filter(str.isprintable, (sent or b"").decode("utf-8", "replace"))).strip()
    return said[:AGENT_CHARACTERS] or None


class Sessions:
    """List and end sessions. Every method is for whoever has logged in."""

    def __init__(self, database: Database, clock: Clock, trail: AuditTrail) -> None:
        self._database = database
        self._clock = clock
        self._trail = trail

    async def list_sessions(self, login: Login) -> Sequence[OpenSession]:
        """The user's sessions that live, newest first."""
        now = self._clock()
        return await self._database.read(
            lambda connection: queries.list_sessions(connection, login.user.id, login.token_hash, now=now)
        )

    async def end(self, login: Login, session_id: int) -> bool:
        """End a session: it is dead at once, on every node. Whether it was the one it is asked by.

        Raises:
            Refused: `session_not_found`: none such lives, or it is somebody else's.
        """
        now, user_id = self._clock(), login.user.id
        entry = self._trail.row("session.ended", user=login.user, resource=str(session_id))

        def end(connection: Connection) -> bool:
            is_id = 0 < session_id <= ID_MOST
            ended = queries.delete_session(connection, user_id, session_id, now=now) if is_id else None
            if ended is None:
                raise Refused("session_not_found", session_id=session_id)
            insert_row(connection, entry)
            return ended == login.token_hash

        return await self._database.write(end)

    async def end_others(self, login: Login) -> int:
        """End every session but the one it is asked by; how many that lived."""
        now = self._clock()
        entry = self._trail.row("session.ended", user=login.user)

        def end(connection: Connection) -> int:
            ended = queries.delete_other_sessions(connection, login.user.id, login.token_hash, now=now)
            if ended:
                insert_row(connection, replace(entry, resource=f"all others: {ended}"))
            return ended

        return await self._database.write(end)
