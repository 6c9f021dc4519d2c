"""Tries that are counted, those of passwords above all: for a login, and for what a login alone does not allow.

A right password is given back what its try took of the limits, in the transaction that uses it; a wrong one is told in
the audit log. What is begun by a password is held to the hash it was checked against: another process may change it
meanwhile.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sqlalchemy import Connection

from beray.server.audit import Action, AuditTrail
from beray.server.auth.passwords import Passwords
from beray.server.auth.rates import Hit, Rates
from beray.server.db import auth as queries
from beray.server.db.audit import insert_row
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.errors import Refused

T = TypeVar("T")

CHECKS: Final = 2  # of one password that is being changed meanwhile


class PasswordChanged(Exception):
    """The hash a password was checked against is no longer the user's."""


@dataclass(frozen=True, slots=True)
class RightPassword:
    """Whose a password is; `known_hash` is what it was checked against, `new_hash` what to store from now on."""

    user: UserRow
    known_hash: str
    new_hash: str | None


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a wrong password is answered with, and what the audit log calls it."""

    code: str
    action: Action


class Tries:
    """Counts tries and checks passwords."""

    def __init__(self, database: Database, *, passwords: Passwords, rates: Rates, trail: AuditTrail) -> None:
        self._database = database
        self._passwords = passwords
        self._rates = rates
        self._trail = trail

    def count(self, hit: Hit) -> Callable[[Connection], Refused | None]:
        """The query that counts a hit: a refusal, told once for each limit and window, if it is one too many."""
        entry = self._trail.row("rate.refused", who=hit.email)

        def count(connection: Connection) -> Refused | None:
            too_often = self._rates.take(connection, hit)
            if too_often is None:
                return None
            if too_often.is_first:  # the others would let a flood fill the disk
                insert_row(connection, replace(entry, resource=f"{hit.action} per {too_often.scope}"))
            return Refused("rate_limited", retry_after_seconds=too_often.seconds, seconds=too_often.seconds)

        return count

    async def by_password(
        self, password: str, hit: Hit, act: Callable[[RightPassword], Awaitable[T]], *, wrong: Wrong
    ) -> T:
        """What `act` gives, once the password has been found right.

        Args:
            password: What was sent.
            hit: The try, which a right password gives back; its `email` says whose password it is.
            act: Does what the password was asked for. In its transaction it calls `give_back`, then `require`.
            wrong: What to say of a wrong password.

        Raises:
            Refused: `wrong.code`, `rate_limited`, and what `act` raises.
        """
        limited = await self._database.write(self.count(hit))
        if limited is not None:
            raise limited
        for _ in range(CHECKS):
            right = await self._check(password, hit, wrong)
            try:
                return await act(right)
            except PasswordChanged:
                continue
            except Refused as refused:  # its transaction is undone; the password was right all the same
                if refused.status_code >= 500:  # nothing can be written now, so nothing can be given back
                    raise
                with suppress(Refused):
                    await self._database.write(lambda connection: self._rates.give_back(connection, hit))
                raise
        raise Refused(wrong.code)

    async def _check(self, password: str, hit: Hit, wrong: Wrong) -> RightPassword:
        """Whose the password is; an unknown address costs the same work as a wrong password."""
        found = await self._database.read(lambda connection: queries.find_user(connection, hit.email))
        user, known_hash = found or (None, None)
        try:
            verdict = await self._passwords.verify(password, known_hash)
        except Refused:  # turned away unread: not a wrong password
            await self._database.write(lambda connection: self._rates.give_back(connection, hit))
            raise
        if user is None or known_hash is None or not verdict.is_right:
            failed = self._trail.row(wrong.action, user=user, who=hit.email)
            await self._database.write(lambda connection: insert_row(connection, failed))
            raise Refused(wrong.code)
        return RightPassword(user, known_hash, verdict.new_hash)

    def give_back(self, connection: Connection, hit: Hit) -> None:
        """Undo the hit of a right password, whose client is known from now on. Locks the counters: call it first."""
        self._rates.give_back(connection, hit)
        self._rates.remember(connection, hit)

    def require(self, connection: Connection, right: RightPassword) -> None:
        """Go on only if the password is still the one that was checked; it stays so until the commit.

        Raises:
            PasswordChanged: It has been changed since.
        """
        if not queries.has_password_hash(connection, right.user.id, right.known_hash):
            raise PasswordChanged
