"""Accounts: who may come in, and as whom.

An account belongs to a mailbox, proven by a code. Being logged in is a session: an opaque token whose hash is a row, so
that logging out ends it at once, on every node. What programs come in with stands in `api_tokens.py`, what may be tried
how often in `rates.py`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from beray.server.audit import AuditTrail, current_caller
from beray.server.auth.api_tokens import ApiTokens, Login
from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.codes import Codes
from beray.server.auth.emails import normalise_email
from beray.server.auth.errands import Errands
from beray.server.auth.live_tokens import LiveTokens, Logins, LoginWatch
from beray.server.auth.mailer import Mail, Mailer, MailNotSent, make_mailer
from beray.server.auth.own_account import OwnAccount
from beray.server.auth.passwords import Passwords, check_length, check_password
from beray.server.auth.rates import Hit, Rates
from beray.server.auth.secret_key import load_secret_key
from beray.server.auth.session_cookie import cookie_token
from beray.server.auth.sessions import Origin, Sessions, session_origin
from beray.server.auth.tokens import (
    TokenKey,
    authorization,
    bearer_token,
    hash_token,
    is_api_token,
    new_token,
    token_key,
)
from beray.server.auth.tries import RightPassword, Tries, Wrong
from beray.server.auth.uses import TokenUses
from beray.server.clock import DAY_MS, Clock
from beray.server.db import api_tokens as api_token_queries
from beray.server.db import auth as queries
from beray.server.db.audit import insert_row
from beray.server.db.auth import SessionRow, UserRow
from beray.server.db.connect import Database
from beray.server.db.logins import TOKEN, OwnRow, TokenUse, find_session, own_row, token_use
from beray.server.db.notices import Notice
from beray.server.errors import Refused, shown
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
LOGIN_FAILED: Final = Wrong("invalid_credentials", "login.failed")


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that has just begun; the token is shown this once."""

    token: str
    expires_in_seconds: int
    user: UserRow


class Accounts:
    """Register, log in, log out, reset a password, and tell whose request it is.

    Whatever takes a request refuses it with `origin_mismatch` where its login is a browser's cookie and no page of ours
    has sent it.

    Wrong input and refusals are raised as `Refused`. Made by `open_accounts`; `close` when done.

    Attributes:
        clients: Tells where a request comes from.
        api_tokens: The tokens that users have made for programs.
        sessions: Where users are logged in.
        own: What users do to their own account.
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
        self.api_tokens = ApiTokens(database, clock, trail)
        self._database = database
        self._clock = clock
        self._codes = codes
        self._passwords = passwords
        self._rates = rates
        self._tries = Tries(database, passwords=passwords, rates=rates, trail=trail)
        self.sessions = Sessions(database, clock, trail)
        self.own = OwnAccount(database, clock, tries=self._tries, passwords=passwords, trail=trail)
        self._mailer = mailer
        self._trail = trail
        self._token_days = token_days
        self._errands = Errands()
        self._uses = TokenUses(database, clock)
        self._live = LiveTokens(0)
        self._logins = Logins(clock, self._find_use)

    def remember_tokens(self) -> None:
        """Look a live token up but once in a while; only where `hear` is told of every login's end as it is committed.

        That is one process that has its database to itself: of others' commits it would hear too late.
        """
        self._live = LiveTokens()

    def hear(self, notices: Sequence[Notice]) -> None:
        """Forget the tokens of those whose logins have ended; called with what was committed, here or elsewhere."""
        for notice in notices:
            if notice.kind == "login":
                self._live.forget_user(notice.user_id)
                self._logins.ends.note(notice.user_id)
            elif notice.kind == "all":
                self._live.forget()
                self._logins.ends.note_any()

    async def close(self) -> None:
        """Send the mails that have begun, and stop the password threads; call it before the database is closed."""
        await self._errands.close()
        await self._uses.close()
        self._passwords.close()

    async def authenticate(self, request: HTTPConnection) -> UserRow:
        """The user whose token the request bears: one look-up at most, and a token that was revoked is dead everywhere.

        Raises:
            Refused: `not_authenticated`.
        """
        use = await self._find_use(token_key(self._token(request)))
        return self._let_in(use)

    async def authenticate_admin(self, request: HTTPConnection) -> UserRow:
        """As `authenticate`, for who is an admin at this moment.

        It is looked up past what is remembered: whoever took the role away, in whatever process, has taken it.

        Raises:
            Refused: `not_authenticated`; `not_found`, as at a path where nothing is.
        """
        user = self._let_in(await self._look_up(token_key(self._token(request)), self._clock()))
        if not user.is_admin:
            raise Refused("not_found", path=shown(request.scope["path"]))
        return user

    async def authenticate_owner(
        self, request: HTTPConnection, wanted: OwnRow, **values: object
    ) -> tuple[UserRow, Sequence[Any] | None]:
        """As `authenticate`, and a row of the user's with it, in one look-up; None if they have no such row.

        Args:
            request: What bears the token.
            wanted: The row.
            values: The parameters of its condition.

        Raises:
            Refused: `not_authenticated`.
        """
        use, row = await self._find_own(token_key(self._token(request)), wanted, values)
        return self._let_in(use), row

    async def watch_login(
        self, request: HTTPConnection, wanted: OwnRow, **values: object
    ) -> tuple[LoginWatch, Sequence[Any] | None]:
        """As `authenticate_owner`, for whoever goes on asking whether the user is still logged in."""
        key, seen = token_key(self._token(request)), self._logins.ends.count
        use, row = await self._find_own(key, wanted, values)
        self._let_in(use)
        assert use is not None, "who is let in has a token"
        return LoginWatch(self._logins, key, use, seen=seen), row

    def _token(self, request: HTTPConnection) -> str:
        """What the request comes in with: where it says anything in `Authorization`, that alone; else its cookie."""
        said = authorization(request)
        token = bearer_token(said) if said else cookie_token(request, self.clients)
        if token is None:
            raise Refused("not_authenticated")
        return token

    def _let_in(self, use: TokenUse | None) -> UserRow:
        if use is None:
            raise Refused("not_authenticated")
        self._uses.note(use)
        if (caller := current_caller.get()) is not None:
            caller.user = use.user
        return use.user

    async def _find_use(self, key: TokenKey) -> TokenUse | None:
        now = self._clock()
        if (live := self._live.find(key.hash, now)) is not None:
            return live
        return await self._look_up(key, now)

    async def _look_up(self, key: TokenKey, now: int) -> TokenUse | None:
        look_up = TOKEN.by_api_token if key.is_api_token else TOKEN.by_session
        row = await self._database.find(look_up, token_hash=key.hash, now=now)
        return None if row is None else self._kept(key, row, now)

    async def _find_own(
        self, key: TokenKey, wanted: OwnRow, values: dict[str, object]
    ) -> tuple[TokenUse | None, Sequence[Any] | None]:
        now = self._clock()
        if (live := self._live.find(key.hash, now)) is not None:
            return live, await self._database.find(wanted.of_known, user_id=live.user.id, **values)
        look_up = wanted.of_token.by_api_token if key.is_api_token else wanted.of_token.by_session
        row = await self._database.find(look_up, token_hash=key.hash, now=now, **values)
        return (None, None) if row is None else (self._kept(key, row, now), own_row(row))

    def _kept(self, key: TokenKey, row: Sequence[Any], now: int) -> TokenUse:
        use = token_use(row)
        self._live.keep(key.hash, use, now)
        return use

    async def authenticate_login(self, request: HTTPConnection) -> Login:
        """As `authenticate`, for what is for people who have logged in: an API token is refused.

        So is whatever could give a token that has leaked a longer life, or shut its owner out.

        Raises:
            Refused: `not_authenticated`, `login_needed`.
        """
        user = await self.authenticate(request)
        token = self._token(request)
        if is_api_token(token):
            raise Refused("login_needed")
        return Login(user, hash_token(token))

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
        count = self._tries.count(hit)

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

    async def request_reset_code(self, raw_email: str, *, client: str) -> None:
        """Send a code to reset the password with, if the address has an account; the caller can't tell whether.

        A stranger's address has the same rows written as a user's, a code among them that nobody is told; and the mail,
        whose server takes its time, goes when this has returned. That it could not be sent is thus said to nobody but
        the log.

        Args:
            raw_email: As the user wrote it.
            client: The client's address (`clients.of`).

        Raises:
            Refused: `invalid_email`, `rate_limited`, `mail_not_sent` (too many mails are on their way).
        """
        email = normalise_email(raw_email)
        if self._errands.is_full:
            raise Refused("mail_not_sent", retry_after_seconds=RETRY_MAIL_SECONDS)
        requested = self._trail.row("code.requested", who=email, resource="reset")
        refused = self._trail.row("code.refused", who=email, resource="no account to reset")
        count = self._tries.count(Hit("code", address=client, email=email))

        def issue(connection: Connection) -> tuple[bool, str] | Refused:
            if (limited := count(connection)) is not None:
                return limited
            is_known = queries.find_user(connection, email) is not None
            insert_row(connection, requested if is_known else refused)
            return is_known, self._codes.issue(connection, email, "reset")

        is_known, code = _or_raise(await self._database.write(issue))
        mail = self._reset_mail(email, code)
        if is_known:
            self._errands.begin(lambda: self._try_to_send(mail), "sending a mail")

    async def reset_password(self, raw_email: str, code: str, password: str, *, client: str) -> None:
        """Set another password for the account whose mailbox got `code`, and end all that the old one had begun.

        Somebody else may have known the old one, so every session ends, and every API token with it. As in `register`
        the code is tried before the password is hashed.

        Raises:
            Refused: `invalid_email`, `invalid_password`, `rate_limited`, `invalid_verification_code` (also where there
                is no account).
        """
        email = normalise_email(raw_email)
        check_password(password)
        code = code.strip()
        count = self._tries.count(Hit("reset", address=client, email=email))
        known = Hit("login", address=client, email=email)
        done = self._trail.row("password.reset", who=email)
        failed = self._trail.row("password.reset.failed", who=email)

        def try_code(connection: Connection) -> Refused | None:
            if (limited := count(connection)) is not None:
                return limited
            if self._codes.try_code(connection, email, "reset", code):
                return None
            insert_row(connection, failed)
            return Refused("invalid_verification_code")

        def reset(connection: Connection) -> None:
            self._rates.remember(connection, known)  # guesses of others must not keep the owner of the mailbox out now
            is_used = self._codes.use(connection, email, "reset", code)
            user = queries.set_password_hash(connection, email, password_hash) if is_used else None
            if user is None:
                raise Refused("invalid_verification_code")
            queries.delete_sessions(connection, user.id)
            api_token_queries.delete_tokens(connection, user.id)
            insert_row(connection, replace(done, user_id=user.id))

        _or_raise(await self._database.write(try_code))
        password_hash = await self._passwords.hash(password)
        await self._database.write(reset)

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
        count = self._tries.count(Hit("register", address=client, email=email))
        registered, failed = self._trail.row("register", who=email), self._trail.row("register.failed", who=email)
        origin = session_origin()

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
            return self._begin_session(connection, user, origin)

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
        return await self._tries.by_password(
            password, hit, lambda right: self._begin_login(right, hit), wrong=LOGIN_FAILED
        )

    async def _begin_login(self, right: RightPassword, hit: Hit) -> NewSession:
        """Begin the session that a right password opens."""
        user = right.user
        entry, origin = self._trail.row("login", user=user), session_origin()

        def begin(connection: Connection) -> NewSession:
            self._tries.give_back(connection, hit)
            self._tries.require(connection, right)
            insert_row(connection, entry)
            if right.new_hash is not None:
                queries.replace_password_hash(connection, user.id, old=right.known_hash, new=right.new_hash)
            return self._begin_session(connection, user, origin)

        return await self._database.write(begin)

    async def logout(self, request: HTTPConnection) -> None:
        """End the session whose token the request bears; an API token ends itself.

        Raises:
            Refused: `not_authenticated`.
        """
        token = self._token(request)
        if is_api_token(token):
            await self.api_tokens.delete_itself(token)
            return
        token_hash, now = hash_token(token), self._clock()
        entry = self._trail.row("logout")

        def revoke(connection: Connection) -> None:
            use = find_session(connection, token_hash, now=now)
            if use is None or not queries.revoke_session(connection, token_hash, now=now):
                raise Refused("not_authenticated")
            insert_row(connection, replace(entry, user_id=use.user.id, who=use.user.email))

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
            return user, self._insert_session(connection, user, days=LOCAL_DAYS, origin=Origin())

        return await self._database.write(ensure)

    def _begin_session(self, connection: Connection, user: UserRow, origin: Origin) -> NewSession:
        queries.purge_sessions(connection, user.id, now=self._clock(), most=MOST_SESSIONS - 1)
        token = self._insert_session(connection, user, days=self._token_days, origin=origin)
        return NewSession(token, self._token_days * DAY_MS // 1000, user)

    def _insert_session(self, connection: Connection, user: UserRow, *, days: int, origin: Origin) -> str:
        token = new_token()
        now = self._clock()
        row = SessionRow(hash_token(token), now, now + days * DAY_MS, origin.user_agent, origin.address)
        queries.insert_session(connection, user.id, row)
        return token

    def _code_mail(self, email: str, code: str) -> Mail:
        return Mail(
            to=email,
            subject=text("code_mail_subject"),
            text=text("code_mail_text", code=code, minutes=self._codes.minutes),
            gist=text("code_announced", email=email, code=code),
        )

    def _reset_mail(self, email: str, code: str) -> Mail:
        return Mail(
            to=email,
            subject=text("reset_mail_subject"),
            text=text("reset_mail_text", code=code, minutes=self._codes.minutes),
            gist=text("reset_code_announced", email=email, code=code),
        )

    async def _send(self, mail: Mail) -> None:
        if not await self._try_to_send(mail):
            raise Refused("mail_not_sent", retry_after_seconds=RETRY_MAIL_SECONDS)

    async def _try_to_send(self, mail: Mail) -> bool:
        try:
            await self._mailer.send(mail)
        except MailNotSent as error:
            log.warning("mail not sent: %s", error)
            return False
        return True


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


def _or_raise(outcome: T | Refused) -> T:
    """A refusal that must not undo its transaction (the hit or the try stays counted) is returned, and raised here."""
    if isinstance(outcome, Refused):
        raise outcome
    return outcome
