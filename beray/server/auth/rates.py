"""How often codes, registrations and logins may be tried: the library `limits`, with its counters in our database.

The table `RULES` is all there is to know. Every rule of an action is checked in one transaction, so that parallel
requests cannot slip through, and the counters hold across processes and restarts. Keys are hashed: the counters hold
no addresses.
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

Action = Literal["code", "register", "login"]
Scope = Literal["address", "email", "both", "everyone"]


@dataclass(frozen=True, slots=True)
class Rule:
    """At most so many hits per window; a window begins with its first hit."""

    scope: Scope
    limit: RateLimitItem


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
    # successful logins are given back: these count wrong passwords
    "login": (
        Rule("address", parse("100 per hour")),
        Rule("both", parse("10 per 5 minute")),
        Rule("email", parse("100 per hour")),
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
        return self.action, rule.scope, hashlib.sha256(who.encode()).hexdigest()[:32]


class Rates:
    """Counts hits, within the caller's transaction."""

    def __init__(self, clock: Clock, *, is_on: bool) -> None:
        self._clock = clock
        self._is_on = is_on

    def take(self, connection: Connection, hit: Hit) -> int | None:
        """Count the hit: None if it is within every rule, else after how many seconds it may be tried again.

        The transaction must be committed either way, so whoever refuses does so after it.
        """
        if not self._is_on:
            return None
        now = self._clock()
        queries.purge_counters(connection, now=now)
        limiter = FixedWindowRateLimiter(_Counters(connection, now))
        for rule in RULES[hit.action]:
            identifiers = hit.identifiers(rule)
            if not limiter.hit(rule.limit, *identifiers):
                reset_time = limiter.get_window_stats(rule.limit, *identifiers).reset_time
                return max(1, math.ceil(reset_time - now / 1000))
        return None

    def give_back(self, connection: Connection, hit: Hit) -> None:
        """Undo a hit that `take` let through."""
        if not self._is_on:
            return
        for rule in RULES[hit.action]:
            queries.take_from_counter(connection, rule.limit.key_for(*hit.identifiers(rule)), now=self._clock())


class _Counters(Storage):
    """The counters of one transaction, as `limits` wants to see them: keys, and times in seconds."""

    STORAGE_SCHEME = None  # not to be had by a URL

    def __init__(self, connection: Connection, now: int) -> None:
        super().__init__()
        self._connection = connection
        self._now = now

    @property
    def base_exceptions(self) -> type[Exception]:
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        expires_at = self._now + expiry * 1000
        return queries.add_to_counter(self._connection, key, amount=amount, now=self._now, expires_at=expires_at)

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
