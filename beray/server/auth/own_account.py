"""What a user does to their own account, by its password: set another one, or delete everything.

A session alone is not enough for either: one that was left open, or stolen, must not shut its owner out. Wrong
passwords count as those of logins do, so that a session helps nobody to guess.
"""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from beray.server.audit import AuditTrail
from beray.server.auth.api_tokens import Login
from beray.server.auth.passwords import Passwords, check_length, check_password
from beray.server.auth.rates import Hit
from beray.server.auth.tries import RightPassword, Tries, Wrong
from beray.server.clock import Clock
from beray.server.db import accounts
from beray.server.db import auth as queries
from beray.server.db.audit import insert_row
from beray.server.db.connect import Database
from beray.server.db.logins import find_session
from beray.server.errors import Refused

CHANGE_FAILED: Final = Wrong("wrong_password", "password.change.failed")
DELETE_FAILED: Final = Wrong("wrong_password", "account.delete.failed")


class OwnAccount:
    """Every method is for whoever has logged in.

    Attributes:
        on_deleted: Told the id of an account that has been deleted, to remove what was its.
    """

    def __init__(
        self, database: Database, clock: Clock, *, tries: Tries, passwords: Passwords, trail: AuditTrail
    ) -> None:
        self.on_deleted: Callable[[int], object] = lambda user_id: None
        self._database = database
        self._clock = clock
        self._tries = tries
        self._passwords = passwords
        self._trail = trail

    async def change_password(self, login: Login, current: str, new: str, *, client: str) -> None:
        """Set another password; every other session ends, API tokens stay.

        Args:
            login: Whose.
            current: The password they have now.
            new: The one they want.
            client: The client's address, as limits count it.

        Raises:
            Refused: `wrong_password`, `invalid_password`, `account_without_password`, `rate_limited`,
                `not_authenticated` (the session has ended meanwhile).
        """
        check_length(current, "current_password")
        check_password(new, "new_password")
        await self._require_password(login)
        hit = Hit("login", address=client, email=login.user.email)
        entry = self._trail.row("password.changed", user=login.user)

        async def change(right: RightPassword) -> None:
            new_hash = await self._passwords.hash(new)

            def write(connection: Connection) -> None:
                self._tries.give_back(connection, hit)
                queries.hold_user(connection, login.user.id)
                self._require_same(connection, login, right)
                queries.replace_password_hash(connection, login.user.id, old=right.known_hash, new=new_hash)
                queries.delete_other_sessions(connection, login.user.id, login.token_hash, now=self._clock())
                insert_row(connection, entry)

            await self._database.write(write)

        await self._tries.by_password(current, hit, change, wrong=CHANGE_FAILED)

    async def delete(self, login: Login, password: str, *, client: str) -> None:
        """Delete the account: all its logins are dead and its tasks hidden at once, and its address is free.

        Running tasks are stopped. What was the account's is removed in the background.

        Args:
            login: Whose.
            password: Their password.
            client: The client's address, as limits count it.

        Raises:
            Refused: `wrong_password`, `invalid_password` (too long to be one), `account_without_password`,
                `last_admin`, `rate_limited`, `not_authenticated` (the session has ended meanwhile).
        """
        check_length(password, "password")
        await self._require_password(login)
        hit = Hit("login", address=client, email=login.user.email)
        entry = self._trail.row("account.deleted", user=login.user)

        async def delete(right: RightPassword) -> None:
            def write(connection: Connection) -> None:
                self._tries.give_back(connection, hit)
                accounts.hold_with_admins(connection, login.user.id)
                self._require_same(connection, login, right)
                if accounts.is_last_admin(connection, login.user.id):
                    raise Refused("last_admin")
                accounts.close_account(connection, login.user, now=self._clock())
                insert_row(connection, entry)

            await self._database.write(write)

        await self._tries.by_password(password, hit, delete, wrong=DELETE_FAILED)
        self.on_deleted(login.user.id)

    async def _require_password(self, login: Login) -> None:
        """Refuse the server's own user, whom no password can prove."""
        found = await self._database.read(lambda connection: queries.find_user(connection, login.user.email))
        if found is not None and found[1] is None:
            raise Refused("account_without_password")

    def _require_same(self, connection: Connection, login: Login, right: RightPassword) -> None:
        """Go on only if neither the password nor the session has ended since they were looked at."""
        self._tries.require(connection, right)
        if find_session(connection, login.token_hash, now=self._clock()) is None:
            raise Refused("not_authenticated")
