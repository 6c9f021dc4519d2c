"""How often codes, registrations, resets and logins may be tried: the library `limits`, its counters in our database.

The table `RULES` is all there is to know. Every rule of an action is checked in one transaction, so that parallel
requests cannot slip through, and the counters hold across processes and restarts. Keys are hashed: the counters hold
no addresses.

A limit over everyone can be used up by a flood, which then shuts everyone out. Three things keep that small: a single
address is stopped by its own rule first; the window is short, so that it is over soon after the flood; and who has
logged in to this account from this address before, or reset its password from there, is not held to what others do
(`spares_known`).
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from beray.server.clock import Clock
from beray.server.db import auth as queries

Action = Literal["code", "register", "reset", "login"]
Scope = Literal["address", "email", "both", "everyone"]


@dataclass(frozen=True, slots=True)
class Rule:
    """At most so many hits per window; a window begins with its first hit.

    With `spares_known` it is not for who has come in to this account from this address in the last `KNOWN_DAYS`.
    """

    scope: Scope
    limit: RateLimitItem
    _: KW_ONLY
    spares_known: bool = False


KNOWN_DAYS: Final = 30  # as long as a session by default: who logs in again then is still known


# In order: who is over one rule uses up none of those below it. So a flood from one address is stopped by that
# address' rule before it can use up what belongs to a mailbox or to everyone.
RULES: Final[Mapping[Action, tuple[Rule, ...]]] = {
    "code": (
        Rule("address", parse("20 per hour")),
        Rule("email", parse("1 per minute")),
        Rule("email", parse("5 per hour")),
        Rule("everyone", parse("500 per hour")),
    ),
    "register": (
        Rule("address", parse("30 per hour")),
        Rule("email", parse("20 per hour")),
    ),
    "reset": (
        Rule("address", parse("30 per hour")),
        Rule("email", parse("20 per hour")),
    ),
    # Successful logins are given back: these count wrong passwords. Over everyone: a guess a second and more is no
    # crowd that mistypes (1 % of 100 000 users in 10 minutes), and to use it up takes 10 addresses at once, and 60 an
    # hour to keep it so.
    "login": (
        Rule("address", parse("100 per hour")),
        Rule("both", parse("10 per 5 minute")),
        Rule("email", parse("100 per hour"), spares_known=True),
        Rule("everyone", parse("1000 per 10 minute"), spares_known=True),
    ),
}


@dataclass(frozen=True, slots=True)
class Hit:
    """One try of an action: who (the client's address) and for which mailbox."""

    action: Action
    _: KW_ONLY
    address: str
    email: str

    def identifiers(self, rule: Rule) -> tuple[str, str, str]:
        """What names the rule's counter."""
        who = {
            "address": self.address,
            "email": self.email,
            "both": f"{self.address} {self.email}",
            "everyone": "",
        }[rule.scope]
        return self.action, rule.scope, _hashed(who)

    @property
    def known_key(self) -> str:
        """The counter that says that this client has logged in to this account."""
        return f"known/{_hashed(f'{self.address} {self.email}')}"


@dataclass(frozen=True, slots=True)
class TooOften:
    """A hit over a limit: which, and after how many seconds it may be tried again.

    `is_first`: no other was over it in this window, so that a log can tell it once.
    """

    scope: Scope
    seconds: int
    is_first: bool


class Rates:
    """Counts hits, within the caller's transaction."""

    def __init__(self, clock: Clock, *, is_on: bool) -> None:
        self._clock = clock
        self._is_on = is_on

    def take(self, connection: Connection, hit: Hit) -> TooOften | None:
        """Count the hit: None if it is within every rule.

        The transaction must be committed either way, so whoever refuses does so after it.
        """
        if not self._is_on:
            return None
        now = self._clock()
        queries.lock_counters(connection)
        queries.purge_counters(connection, now=now)
        counters = _Counters(connection, now)
        limiter = FixedWindowRateLimiter(counters)
        for rule in self._rules(connection, hit, now):
            identifiers = hit.identifiers(rule)
            if not limiter.hit(rule.limit, *identifiers):
                is_first = counters.last_count == rule.limit.amount + 1
                reset_time = limiter.get_window_stats(rule.limit, *identifiers).reset_time
                return TooOften(rule.scope, max(1, math.ceil(reset_time - now / 1000)), is_first)
        return None

    def give_back(self, connection: Connection, hit: Hit) -> None:
        """Undo a hit that `take` let through."""
        if not self._is_on:
            return
        now = self._clock()
        queries.lock_counters(connection)
        for rule in self._rules(connection, hit, now):
            queries.take_from_counter(connection, rule.limit.key_for(*hit.identifiers(rule)), now=now)

    def remember(self, connection: Connection, hit: Hit) -> None:
        """Note that the client has logged in, or could have: it is known from now on."""
        if not self._is_on:
            return
        now = self._clock()
        queries.lock_counters(connection)
        queries.delete_counter(connection, hit.known_key)  # else it would keep the end it has
        queries.add_to_counter(
            connection, hit.known_key, amount=1, now=now, expires_at=now + KNOWN_DAYS * 24 * 3_600_000
        )

    def _rules(self, connection: Connection, hit: Hit, now: int) -> list[Rule]:
        rules = RULES[hit.action]
        is_known = (
            any(rule.spares_known for rule in rules) and queries.read_counter(connection, hit.known_key, now=now)[0]
        )
        return [rule for rule in rules if not (is_known and rule.spares_known)]


class _Counters(Storage):
    """The counters of one transaction, as `limits` wants to see them: keys, and times in seconds."""

    STORAGE_SCHEME = None  # not to be had by a URL

    def __init__(self, connection: Connection, now: int) -> None:
        super().__init__()
        self._connection = connection
        self._now = now
        self.last_count = 0
        """What the counter that was added to last has come to."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        expires_at = self._now + expiry * 1000
        self.last_count = queries.add_to_counter(
            self._connection, key, amount=amount, now=self._now, expires_at=expires_at
        )
        return self.last_count

    def get(self, key: str) -> int:
        return queries.read_counter(self._connection, key, now=self._now)[0]

    def get_expiry(self, key: str) -> float:
        return queries.read_counter(self._connection, key, now=self._now)[1] / 1000

    def check(self) -> bool:
        return True  # within a transaction the database is there

    def reset(self) -> int:
        return queries.delete_counters(self._connection)

    def clear(self, key: str) -> None:
        queries.delete_counter(self._connection, key)


def _hashed(who: str) -> str:
    return hashlib.sha256(who.encode()).hexdigest()[:32]
