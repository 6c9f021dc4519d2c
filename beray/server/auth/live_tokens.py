"""What is remembered of tokens: those that were alive a moment ago, and whose logins have ended since.

A process that has its database to itself remembers whose a token is, and forgets it in the commit's wake when a login
ends: before the logout is answered. Where several processes share the database a token must be dead on each of them at
that moment, which no message between them can promise; so there nothing is remembered and every request looks.

An open stream is another matter: it is told of a login's end by a notice, and looks itself only then, and now and then.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from beray.server.auth.tokens import TokenKey
from beray.server.clock import Clock
from beray.server.db.auth import UserRow
from beray.server.db.logins import TokenUse
from beray.server.errors import Refused

TOKENS_MOST: Final = 4096  # some 500 bytes each
BELIEVED_MS: Final = 1000  # so what an operator changes in the database by hand counts too
ENDS_MOST: Final = 4096  # users of whom it is known apart that a login has ended
WATCH_MS: Final = 15_000  # to 30 s: between looks of an open stream that was told nothing
AWAY_MS: Final = 5_000  # until the next look where the database was away at the last


class LiveTokens:
    """Tokens that were found alive, each for a moment.

    Args:
        most: How many; 0: remember none.
    """

    def __init__(self, most: int = TOKENS_MOST) -> None:
        self._most = most
        self._found: dict[bytes, tuple[TokenUse, int, int]] = {}  # with when it was found, and until when it counts

    def find(self, token_hash: bytes, now: int) -> TokenUse | None:
        """The use of a token that need not be looked up."""
        found = self._found.get(token_hash)
        if found is None:
            return None
        use, found_at, until = found
        return use if found_at <= now < until else None  # a clock that was set back makes nothing last

    def keep(self, token_hash: bytes, use: TokenUse, now: int) -> None:
        """Remember what was looked up now."""
        if self._most == 0:
            return
        until = now + BELIEVED_MS
        if use.expires_at is not None:
            until = min(until, use.expires_at)
        self._found.pop(token_hash, None)  # the oldest stand first
        self._found[token_hash] = (use, now, until)
        if len(self._found) > self._most:
            del self._found[next(iter(self._found))]

    def forget_user(self, user_id: int) -> None:
        """Forget a user's tokens."""
        of_user = [token_hash for token_hash, (use, _, _) in self._found.items() if use.user.id == user_id]
        for token_hash in of_user:
            del self._found[token_hash]

    def forget(self) -> None:
        """Forget every token."""
        self._found.clear()


class LoginEnds:
    """When a login of a user has ended last, counted by the ends there have been."""

    def __init__(self, most: int = ENDS_MOST) -> None:
        self._most = most
        self._of_user: dict[int, int] = {}
        self._of_anybody = 0  # up to here anybody's may have
        self.count = 0

    def note(self, user_id: int) -> None:
        """A login of this user has ended."""
        self.count += 1
        self._of_user[user_id] = self.count
        if len(self._of_user) > self._most:
            self.note_any()

    def note_any(self) -> None:
        """Anybody's may have ended."""
        self.count += 1
        self._of_anybody = self.count
        self._of_user.clear()

    def has_any_since(self, count: int, user_id: int) -> bool:
        """Whether a login of the user may have ended since there were `count` ends."""
        return self._of_anybody > count or self._of_user.get(user_id, 0) > count


class Logins:
    """What all watches share.

    Args:
        clock: The server's clock.
        look: Looks a token up; None when it is dead.
    """

    def __init__(self, clock: Clock, look: Callable[[TokenKey], Awaitable[TokenUse | None]]) -> None:
        self.clock = clock
        self.look = look
        self.ends = LoginEnds()


class LoginWatch:
    """Whether whoever opened a stream is still logged in. Asking costs nothing while no login of theirs has ended.

    Args:
        logins: What all watches share.
        key: Of the token they came with.
        use: What it was found to be.
        seen: How many ends there were before that was looked up.
    """

    __slots__ = ("_expires_at", "_key", "_logins", "_look_at", "_looked_at", "_seen", "user")  # one for each stream

    def __init__(self, logins: Logins, key: TokenKey, use: TokenUse, *, seen: int) -> None:
        self.user: UserRow = use.user
        self._logins = logins
        self._key = key
        self._note(use, seen)

    @property
    def is_sure(self) -> bool:
        """Whether they are certainly logged in, without a look at the database."""
        now = self._logins.clock()
        return (
            self._looked_at <= now < self._look_at  # a clock that was set back makes nobody sure
            and (self._expires_at is None or now < self._expires_at)
            and not self._logins.ends.has_any_since(self._seen, self.user.id)
        )

    async def __call__(self) -> bool:
        """Whether they are still logged in; while the database is away nobody can tell, and no stream ends."""
        if self.is_sure:
            return True
        seen = self._logins.ends.count  # before the look: an end that comes meanwhile is looked for again
        try:
            use = await self._logins.look(self._key)
        except Refused:
            self._look_in(AWAY_MS)
            return True
        if use is None:
            return False
        self._note(use, seen)
        return True

    def _note(self, use: TokenUse, seen: int) -> None:
        self._seen = seen
        self._expires_at = use.expires_at
        # Spread by the token, or a thousand that were opened together would look together.
        self._look_in(WATCH_MS + WATCH_MS * self._key.hash[0] // 256)

    def _look_in(self, milliseconds: int) -> None:
        self._looked_at = self._logins.clock()
        self._look_at = self._looked_at + milliseconds
