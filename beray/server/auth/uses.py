"""When sessions and API tokens are used: noted beside the requests, to the hour."""

from functools import partial
from typing import Final

from beray.server.auth.errands import Errands
from beray.server.clock import Clock
from beray.server.db import api_tokens, auth
from beray.server.db.connect import Database, Query
from beray.server.db.logins import TokenUse

HOUR_MS: Final = 3_600_000


class TokenUses:
    """Notes when tokens are used: in each hour once for each token and process. `close` when done."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._errands = Errands()
        self._hour = 0
        self._noted: set[tuple[int | None, int | None]] = set()

    def note(self, use: TokenUse) -> None:
        """Note that a request bears the token; that is written soon, and at most once an hour."""
        now = self._clock()
        hour = now // HOUR_MS
        if use.last_used_at is not None and use.last_used_at // HOUR_MS >= hour:
            return
        if hour != self._hour:
            self._hour = hour
            self._noted.clear()
        key = use.session_id, use.api_token_id
        if key in self._noted or self._errands.is_full:
            return
        self._noted.add(key)  # also if it fails: a full disk is not tried again by every request
        query = _noting(use, now)
        self._errands.begin(lambda: self._database.write(query), "noting that a token is used")

    async def close(self) -> None:
        """Write down what is known of the last uses."""
        await self._errands.close()


def _noting(use: TokenUse, now: int) -> Query[None]:
    if use.api_token_id is not None:
        return partial(api_tokens.note_use, token_id=use.api_token_id, now=now)
    assert use.session_id is not None, "a token is a session's or an API token"
    return partial(auth.note_session_use, session_id=use.session_id, now=now)
