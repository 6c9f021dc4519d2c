"""A real SMTP server on loopback, just large enough to receive what a mailer sends."""

import asyncio
import base64
import ssl
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Received:
    """One mail, as it came over the wire."""

    recipients: list[str]
    content: bytes


@dataclass
class SmtpTestServer:
    """Start with `async with`; then read `port`, `mails`, `logins` (user, password) and `commands`.

    Attributes:
        tls: Offers STARTTLS when given.
        is_tls_at_once: Speaks TLS from the first byte instead (smtps).
        refuse_recipients: Answers every RCPT with 550.
        is_silent: Accepts connections and never says a word.
    """

    tls: ssl.SSLContext | None = None
    is_tls_at_once: bool = False
    refuse_recipients: bool = False
    is_silent: bool = False
    mails: list[Received] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._connections: set[asyncio.Task[None]] = set()
        at_once = self.tls if self.is_tls_at_once else None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=at_once)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self.is_silent:
                await reader.read()
            else:
                await self._talk(reader, writer)
        except (ConnectionError, ssl.SSLError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test ESMTP\r\n")
        recipients: list[str] = []
        is_encrypted = self.is_tls_at_once
        while line := (await reader.readline()).decode("utf-8").strip():
            self.commands.append(line)
            verb = line.split(maxsplit=1)[0].upper()
            if verb == "EHLO":
                offers = ["test", "8BITMIME", "SMTPUTF8", "AUTH PLAIN"]
                offers += ["STARTTLS"] if self.tls and not is_encrypted else []
                writer.write(b"".join(f"250-{offer}\r\n".encode() for offer in offers) + b"250 HELP\r\n")
            elif verb == "STARTTLS" and self.tls:
                writer.write(b"220 go ahead\r\n")
                await writer.start_tls(self.tls)
                is_encrypted = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                self.logins.append((user, password))
                writer.write(b"235 welcome\r\n")
            elif verb == "RCPT" and self.refuse_recipients:
                writer.write(b"550 no such mailbox\r\n")
            elif verb == "RCPT":
                recipients.append(line[line.index("<") + 1 : line.index(">")])
                writer.write(b"250 ok\r\n")
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                content = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(Received(recipients, content[:-3]))
                recipients = []
                writer.write(b"250 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")
