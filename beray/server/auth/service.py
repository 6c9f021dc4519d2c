"""Accounts: who may come in, and as whom.

An account belongs to a mailbox, proven by a code. Being logged in is a session: an opaque token whose hash is a row, so
that logging out ends it at once, on every node. What may be tried how often stands in `rates.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from beray.server.audit import AuditTrail, current_caller
from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.codes import Codes
from beray.server.auth.emails import normalise_email
from beray.server.auth.mailer import Mail, Mailer, MailNotSent, make_mailer
from beray.server.auth.passwords import Passwords, check_length, check_password
from beray.server.auth.rates import Hit, Rates
from beray.server.auth.secret_key import load_secret_key
from beray.server.auth.tokens import bearer_token, hash_token, new_token
from beray.server.clock import DAY_MS, Clock
from beray.server.db import auth as queries
from beray.server.db.audit import insert_row
from beray.server.db.auth import SessionRow, UserRow
from beray.server.db.connect import Database
from beray.server.errors import Refused
from beray.server.messages import text
from beray.server.settings import Settings

T = TypeVar("T")

log = logging.getLogger("beray.auth")

LOCAL_EMAIL: Final = "local@localhost"  # no mailbox has it (no period), so nobody can register or reset it
LOCAL_DAYS: Final = 3650  # the embedded server makes a new token at each start, which ends the old one
MOST_SESSIONS: Final = (
    1000  # per user; the oldest go first. More than this many logins live at once are a program's leak
)
RETRY_MAIL_SECONDS: Final = 60  # what the rule "1 per minute" for codes asks for anyway


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that has just begun; the token is shown this once."""

    token: str
    expires_in_seconds: int
    user: UserRow


class Accounts:
    """Register, log in, log out, and tell whose request it is.

    Wrong input and refusals are raised as `Refused`. Made by `open_accounts`; `close` when done.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        codes: Codes,
        passwords: Passwords,
        rates: Rates,
        mailer: Mailer,
        clients: ClientAddresses,
        trail: AuditTrail,
        token_days: int,
    ) -> None:
        self.clients = clients
        self._database = database
        self._clock = clock
        self._codes = codes
        self._passwords = passwords
        self._rates = rates
        self._mailer = mailer
        self._trail = trail
        self._token_days = token_days

    def close(self) -> None:
        """Stop the password threads."""
        self._passwords.close()

    async def authenticate(self, request: HTTPConnection) -> UserRow:
        """The user whose token the request bears: one indexed read, so a token is dead everywhere once it is revoked.

        Raises:
            Refused: `not_authenticated`.
        """
        token_hash = _token_hash(request)
        now = self._clock()
        user = await self._database.read(lambda connection: queries.find_user_by_token(connection, token_hash, now=now))
        if user is None:
            raise Refused("not_authenticated")
        if (caller := current_caller.get()) is not None:
            caller.user = user
        return user

    async def request_code(self, raw_email: str, *, client: str) -> None:
        """Send a code to the address, if it has no account yet.

        Args:
            raw_email: As the user wrote it.
            client: The client's address (`clients.of`).

        Raises:
            Refused: `email_already_registered` (counted like a code sent), `invalid_email`, `rate_limited`,
                `mail_not_sent`.
        """
        email = normalise_email(raw_email)
        hit = Hit("code", address=client, email=email)
        requested = self._trail.row("code.requested", who=email)
        refused = self._trail.row("code.refused", who=email, resource="email_already_registered")
        count = self._count(hit)

        def issue(connection: Connection) -> str | Refused:
            if (limited := count(connection)) is not None:
                return limited
            if queries.find_user(connection, email) is not None:
                insert_row(connection, refused)
                return Refused("email_already_registered", email=email)
            insert_row(connection, requested)
            return self._codes.issue(connection, email, "register")

        code = _or_raise(await self._database.write(issue))
        await self._send(self._code_mail(email, code))

    async def register(self, raw_email: str, code: str, password: str, *, client: str) -> NewSession:
        """Make an account for the mailbox that got `code`, and log in.

        The code is tried before the password is hashed, so that a guess costs the server nothing, and used up together
        with the account's creation, so that of two at once one wins, and who is turned away keeps the code.

        Raises:
            Refused: `invalid_email`, `invalid_password`, `rate_limited`, `email_already_registered`,
                `invalid_verification_code`.
        """
        email = normalise_email(raw_email)
        check_password(password)
        code = code.strip()
        count = self._count(Hit("register", address=client, email=email))
        registered, failed = self._trail.row("register", who=email), self._trail.row("register.failed", who=email)

        def try_code(connection: Connection) -> Refused | None:
            if (limited := count(connection)) is not None:
                return limited
            refused = None
            if queries.find_user(connection, email) is not None:
                refused = Refused("email_already_registered", email=email)
            elif not self._codes.try_code(connection, email, "register", code):
                refused = Refused("invalid_verification_code")
            if refused is not None:
                insert_row(connection, replace(failed, resource=refused.code))
            return refused

        def create(connection: Connection) -> NewSession:
            if not self._codes.use(connection, email, "register", code):
                raise Refused("invalid_verification_code")
            user = queries.insert_user(connection, email, password_hash=password_hash, now=self._clock())
            if user is None:
                raise Refused("email_already_registered", email=email)
            insert_row(connection, replace(registered, user_id=user.id))
            return self._begin_session(connection, user)

        _or_raise(await self._database.write(try_code))
        password_hash = await self._passwords.hash(password)
        return await self._database.write(create)

    async def login(self, raw_email: str, password: str, *, client: str) -> NewSession:
        """Begin a session. An unknown address and a wrong password cost the same work and get the same answer.

        Raises:
            Refused: `invalid_credentials`, `invalid_email`, `invalid_password` (too long to be one), `rate_limited`.
        """
        email = normalise_email(raw_email)
        check_length(password)
        hit = Hit("login", address=client, email=email)
        limited = await self._database.write(self._count(hit))
        if limited is not None:
            raise limited
        found = await self._database.read(lambda connection: queries.find_user(connection, email))
        user, known_hash = found or (None, None)
        try:
            verdict = await self._passwords.verify(password, known_hash)
        except Refused:  # turned away unread: not a wrong password
            await self._database.write(lambda connection: self._rates.give_back(connection, hit))
            raise
        if user is None or not verdict.is_right:
            failed = self._trail.row("login.failed", user=user, who=email)
            await self._database.write(lambda connection: insert_row(connection, failed))
            raise Refused("invalid_credentials")
        entry = self._trail.row("login", user=user)

        def begin(connection: Connection) -> NewSession:
            self._rates.give_back(connection, hit)
            self._rates.remember(connection, hit)
            insert_row(connection, entry)
            if known_hash is not None and verdict.new_hash is not None:
                queries.replace_password_hash(connection, user.id, old=known_hash, new=verdict.new_hash)
            return self._begin_session(connection, user)

        return await self._database.write(begin)

    async def logout(self, request: HTTPConnection) -> None:
        """End the session whose token the request bears.

        Raises:
            Refused: `not_authenticated`.
        """
        token_hash = _token_hash(request)
        now = self._clock()
        entry = self._trail.row("logout")

        def revoke(connection: Connection) -> None:
            user = queries.find_user_by_token(connection, token_hash, now=now)
            if user is None or not queries.revoke_session(connection, token_hash, now=now):
                raise Refused("not_authenticated")
            insert_row(connection, replace(entry, user_id=user.id, who=user.email))

        await self._database.write(revoke)

    async def ensure_local_user(self) -> tuple[UserRow, str]:
        """The embedded server's user, who has no password, and a fresh token; older tokens of theirs end."""

        def ensure(connection: Connection) -> tuple[UserRow, str]:
            user = queries.insert_user(connection, LOCAL_EMAIL, password_hash=None, now=self._clock())
            if user is None:
                found = queries.find_user(connection, LOCAL_EMAIL)
                assert found is not None, "an address is taken by a user"
                user = found[0]
            queries.delete_sessions(connection, user.id)
            return user, self._insert_session(connection, user, days=LOCAL_DAYS)

        return await self._database.write(ensure)

    def _count(self, hit: Hit) -> Callable[[Connection], Refused | None]:
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

    def _begin_session(self, connection: Connection, user: UserRow) -> NewSession:
        queries.purge_sessions(connection, user.id, now=self._clock(), most=MOST_SESSIONS - 1)
        token = self._insert_session(connection, user, days=self._token_days)
        return NewSession(token, self._token_days * DAY_MS // 1000, user)

    def _insert_session(self, connection: Connection, user: UserRow, *, days: int) -> str:
        token = new_token()
        now = self._clock()
        queries.insert_session(connection, user.id, SessionRow(hash_token(token), now, now + days * DAY_MS))
        return token

    def _code_mail(self, email: str, code: str) -> Mail:
        return Mail(
            to=email,
            subject=text("code_mail_subject"),
            text=text("code_mail_text", code=code, minutes=self._codes.minutes),
            gist=text("code_announced", email=email, code=code),
        )

    async def _send(self, mail: Mail) -> None:
        try:
            await self._mailer.send(mail)
        except MailNotSent as error:
            log.warning("mail not sent: %s", error)
            raise Refused("mail_not_sent", retry_after_seconds=RETRY_MAIL_SECONDS) from error


def open_accounts(
    settings: Settings,
    database: Database,
    *,
    clock: Clock,
    trail: AuditTrail,
    announce: Callable[[str], None],
) -> Accounts:
    """Accounts as the settings ask for. Blocking: reads, or makes, the secret key.

    Args:
        settings: The server's settings.
        database: Open before the first call.
        clock: The server's clock.
        trail: The audit log.
        announce: Is given one line per mail when there is no SMTP server: the code, for the server's terminal.

    Raises:
        SettingError: A setting can't be used.
    """
    return Accounts(
        database,
        clock,
        codes=Codes(load_secret_key(settings), minutes=settings.code_minutes, clock=clock),
        passwords=Passwords(),
        rates=Rates(clock, is_on=settings.rate_limits),
        mailer=make_mailer(settings, clock, announce),
        clients=ClientAddresses(settings.trusted_proxies),
        trail=trail,
        token_days=settings.token_days,
    )


def _token_hash(request: HTTPConnection) -> bytes:
    token = bearer_token(request)
    if token is None:
        raise Refused("not_authenticated")
    return hash_token(token)


def _or_raise(outcome: T | Refused) -> T:
    """A refusal that must not undo its transaction (the hit or the try stays counted) is returned, and raised here."""
    if isinstance(outcome, Refused):
        raise outcome
    return outcome
