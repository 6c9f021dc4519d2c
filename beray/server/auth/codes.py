"""Verification codes: six digits that prove a mailbox is yours.

A million codes would be guessed soon, so a code lives `code_minutes`, takes five tries, is used once, and is replaced
by the next one asked for; `rates.py` limits how often that may be. What is stored is an HMAC under the server's key:
with the database alone a code cannot be found by trying all million.
"""

import hmac
import secrets
from typing import Final, Literal

from sqlalchemy import Connection

from beray.server.clock import Clock
from beray.server.db import auth as queries

Purpose = Literal["register", "reset"]

MAX_TRIES: Final = 5
DIGITS: Final = 6


class Codes:
    """Issue, try and use up codes, within the caller's transaction."""

    def __init__(self, secret_key: bytes, *, minutes: int, clock: Clock) -> None:
        self._secret_key = secret_key
        self.minutes = minutes
        self._clock = clock

    def issue(self, connection: Connection, email: str, purpose: Purpose) -> str:
        """A new code, in place of the address' older one."""
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
        now = self._clock()
        row = queries.CodeRow(
            email=email,
            purpose=purpose,
            code_hmac=self._hmac(email, purpose, code),
            created_at=now,
            expires_at=now + self.minutes * 60_000,
        )
        queries.put_code(connection, row)
        return code

    def try_code(self, connection: Connection, email: str, purpose: Purpose, code: str) -> bool:
        """Whether `code` is right; counts a try, so the transaction must be committed either way."""
        stored = queries.try_code(connection, email, purpose, now=self._clock(), most=MAX_TRIES)
        return stored is not None and hmac.compare_digest(stored, self._hmac(email, purpose, code))

    def use(self, connection: Connection, email: str, purpose: Purpose, code: str) -> bool:
        """Use a code up that `try_code` found right; False if someone else was faster."""
        return queries.use_code(connection, email, purpose, self._hmac(email, purpose, code))

    def _hmac(self, email: str, purpose: Purpose, code: str) -> bytes:
        message = "\0".join(("beray verification code", email, purpose, code))  # NUL: no two triples read the same
        return hmac.digest(self._secret_key, message.encode(), "sha256")
