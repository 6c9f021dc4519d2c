"""Sending mail: by SMTP where the operator has set a server, else into the outbox, a folder.

Without any setting registration must work, offline too: the outbox keeps each mail as a file, and the code in it is
announced on the server's terminal, whose owner is the one to know it.
"""

import asyncio
import ipaddress
import itertools
import os
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from beray.server.auth.emails import envelope_address
from beray.server.clock import Clock
from beray.server.settings import SettingError, Settings

TIMEOUT_SECONDS: Final = 10  # per SMTP step
DEADLINE_SECONDS: Final = 20  # for a whole mail, waiting for a connection included
CONNECTIONS: Final = 4
KEPT_MAILS: Final = 1000  # in the outbox; the oldest go first


class MailNotSent(Exception):
    """A mail could not be delivered; the text says why, to the operator."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one person.

    Attributes:
        to: A normalised address.
        gist: What it says, in one line, for the terminal of a server without SMTP.
    """

    to: str
    subject: str
    text: str
    gist: str


class Mailer(Protocol):
    """Delivers mails."""

    async def send(self, mail: Mail) -> None:
        """Deliver the mail, or hand it to a server that will.

        Raises:
            MailNotSent: It was not taken.
        """
        ...


def make_mailer(settings: Settings, clock: Clock, announce: Callable[[str], None]) -> Mailer:
    """The mailer the settings ask for.

    Args:
        settings: `smtp_url`, `mail_from`, `data_dir`.
        clock: Dates the mails.
        announce: Is given one line per mail that went to the outbox, for people at the server's terminal.

    Raises:
        SettingError: `smtp_url` or `mail_from` can't be used.
    """
    letterhead = Letterhead(settings.mail_from, clock)
    if settings.smtp_url is None:
        return OutboxMailer(settings.data_dir / "outbox", letterhead, clock=clock, announce=announce)
    return SmtpMailer(parse_smtp_url(settings.smtp_url), letterhead)


class Letterhead:
    """Makes a message of a mail."""

    def __init__(self, mail_from: str, clock: Clock) -> None:
        address = parseaddr(mail_from)[1]
        if "@" not in address or not mail_from.isprintable():
            raise SettingError(
                f"BERAY_MAIL_FROM={mail_from!r} cannot be used: it must look like BeRay <beray@example.com>."
            )
        self._mail_from = mail_from
        self._domain = address.rpartition("@")[2]
        self._clock = clock

    def message(self, mail: Mail) -> EmailMessage:
        """The mail with all its headers."""
        message = EmailMessage(policy.SMTP)
        message["From"] = self._mail_from
        message["To"] = envelope_address(mail.to)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.fromtimestamp(self._clock() / 1000, UTC))
        message["Message-ID"] = make_msgid(domain=self._domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
        message.set_content(mail.text, cte="8bit")
        return message


class OutboxMailer:
    """Keeps mails in a folder only the server's user can read, one `.eml` file each."""

    def __init__(self, folder: Path, letterhead: Letterhead, *, clock: Clock, announce: Callable[[str], None]) -> None:
        self._folder = folder
        self._letterhead = letterhead
        self._clock = clock
        self._announce = announce
        self._numbers = itertools.count()

    async def send(self, mail: Mail) -> None:
        """Write the file, then announce it."""
        message = self._letterhead.message(mail)
        try:
            path = await asyncio.to_thread(self._write, message.as_bytes(policy=policy.SMTPUTF8))
        except OSError as error:
            raise MailNotSent(f"the mail could not be written to {self._folder}: {error}") from error
        self._announce(f"{mail.gist}  ({path})")

    def _write(self, content: bytes) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{self._clock():014}-{next(self._numbers):06}-{secrets.token_hex(4)}.eml"  # by age
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        part.rename(path)
        self._forget_oldest()
        return path

    def _forget_oldest(self) -> None:
        for path in sorted(self._folder.glob("*.eml"))[:-KEPT_MAILS]:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mails go.

    Attributes:
        use_tls: TLS from the first byte (smtps).
        start_tls: True: insist on STARTTLS; None: use it where offered; False: never.
    """

    host: str
    port: int
    username: str | None
    password: str | None
    use_tls: bool
    start_tls: bool | None


def parse_smtp_url(url: str) -> SmtpServer:
    """Read `smtp://user:password@host:587` or `smtps://…`; user and password are percent-encoded.

    With a password STARTTLS is insisted on, so that nobody on the way can have it sent in clear. To this machine itself
    there is nobody on the way, and its usual self-signed certificate would only be refused: no TLS.

    Raises:
        SettingError: It is neither; the text does not show it, since it holds a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_smtp_url() from error
    if parts.scheme not in {"smtp", "smtps"} or not host or parts.path not in {"", "/"} or parts.query:
        raise _bad_smtp_url()
    use_tls = parts.scheme == "smtps"
    username = unquote(parts.username) if parts.username else None
    return SmtpServer(
        host=host,
        port=port or (465 if use_tls else 587 if username else 25),
        username=username,
        password=unquote(parts.password or "") if username else None,
        use_tls=use_tls,
        start_tls=False if use_tls or _is_loopback(host) else True if username else None,
    )


def _bad_smtp_url() -> SettingError:
    return SettingError(
        "BERAY_SMTP_URL=*** cannot be used: it must look like smtp://user:password@host:587 or smtps://…:465, "
        "with user and password percent-encoded."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SmtpMailer:
    """Hands mails to an SMTP server, a connection each, a few at a time."""

    def __init__(
        self,
        server: SmtpServer,
        letterhead: Letterhead,
        *,
        tls_context: ssl.SSLContext | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._server = server
        self._letterhead = letterhead
        self._tls_context = tls_context
        self._deadline_seconds = deadline_seconds
        self._connections = asyncio.Semaphore(CONNECTIONS)

    async def send(self, mail: Mail) -> None:
        """Hand the mail over."""
        from aiosmtplib import SMTPException  # at the first mail: most servers have no SMTP, and none needs it to start

        message = self._letterhead.message(mail)
        try:
            async with asyncio.timeout(self._deadline_seconds), self._connections:
                await self._hand_over(message)
        except (SMTPException, OSError, ValueError) as error:  # OSError: TimeoutError and TLS too
            raise MailNotSent(f"{self._server.host}:{self._server.port} did not take the mail: {error!r}") from error

    async def _hand_over(self, message: EmailMessage) -> None:
        from aiosmtplib import send

        server = self._server
        await send(
            message,
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.use_tls,
            start_tls=server.start_tls,
            tls_context=self._tls_context,
            timeout=TIMEOUT_SECONDS,
        )
