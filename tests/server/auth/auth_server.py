"""A real server that has nothing but accounts: uvicorn on a free loopback port, SQLite, and a clock of its own."""

import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import requests
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import text

from beray.server.app import install_error_handlers
from beray.server.audit import AuditTrail
from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.codes import Codes
from beray.server.auth.mailer import Mailer, make_mailer
from beray.server.auth.passwords import Passwords
from beray.server.auth.rates import Rates
from beray.server.auth.routes import build_router
from beray.server.auth.service import Accounts
from beray.server.db.sqlite import SqliteDatabase, sqlite_engine
from beray.server.edge import Edge
from beray.server.settings import Settings
from tests.support.asgi import served
from tests.support.databases import make_sqlite
from tests.support.waiting import wait_until

KEY = b"k" * 32
EMAIL = "new_user@example.com"
PASSWORD = "a_very_secure_password"
NEW_PASSWORD = "another_secure_password"


class FakeClock:
    """Stands still until it is told to advance."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, *, minutes: float = 0, days: float = 0) -> None:
        self.now += int((days * 24 * 60 + minutes) * 60_000)


class CountingHasher(PasswordHasher):
    """Cheap hashes, each counted: the work of a login is what it hashes."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.work: list[str] = []

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.work.append("hash")
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.work.append("verify")
        return super().verify(hash, password)


class StuckHasher(CountingHasher):
    """Hashes once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        assert self.go.wait(30)
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        assert self.go.wait(30)
        return super().verify(hash, password)


@dataclass
class AuthServer:
    """What a test sees of the server."""

    url: str
    folder: Path
    clock: FakeClock
    hasher: CountingHasher
    announced: list[str] = field(default_factory=list)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, timeout=30, **kwargs)

    def request_code(self, email: str, **kwargs: Any) -> requests.Response:
        return self.post("/auth/request-verification-code", {"email": email}, **kwargs)

    def code_for(self, email: str) -> str:
        """Ask for a code and read it from the mailbox."""
        answer = self.request_code(email)
        assert answer.status_code == 200, answer.text
        return self.last_code(email)

    def last_code(self, email: str) -> str:
        return re.findall(r"^\d{6}$", self.mailbox(email)[-1], re.MULTILINE)[0]

    def request_reset(self, email: str, **kwargs: Any) -> requests.Response:
        return self.post("/auth/request-verification-code", {"email": email, "purpose": "reset"}, **kwargs)

    def reset_code_for(self, email: str) -> str:
        """Ask for a code to reset the password and read it from the mailbox, once the mail is there."""
        before = len(self.mailbox(email))
        answer = self.request_reset(email)
        assert answer.status_code == 200, answer.text
        wait_until(lambda: len(self.mailbox(email)) > before, what="the mail")
        return self.last_code(email)

    def reset(self, code: str, email: str = EMAIL, password: str = NEW_PASSWORD) -> requests.Response:
        body = {"email": email, "verification_code": code, "password": password}
        return self.post("/auth/reset-password", body)

    def mailbox(self, email: str) -> list[str]:
        """The texts of the mails to this address, oldest first."""
        paths = sorted((self.folder / "outbox").glob("*.eml"))
        mails = [message_from_bytes(path.read_bytes(), policy=policy.SMTPUTF8) for path in paths]
        return [mail.get_content().replace("\r\n", "\n") for mail in mails if mail["To"] == email]

    def register(self, email: str, password: str = PASSWORD) -> str:
        """Register with a fresh code; the token."""
        body = {"email": email, "verification_code": self.code_for(email), "password": password}
        answer = self.post("/auth/register", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def login(self, email: str, password: str = PASSWORD, **kwargs: Any) -> requests.Response:
        return self.post("/auth/login", {"email": email, "password": password}, **kwargs)

    def me(self, token: str) -> requests.Response:
        return requests.get(f"{self.url}/users/me", headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def bearing(self, token: str, method: str, path: str, body: Any = None) -> requests.Response:
        """A request with this token."""
        headers = {"Authorization": f"Bearer {token}"}
        return requests.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=30)

    def make_token(self, token: str, name: str = "ci", **fields: Any) -> dict[str, Any]:
        """Make an API token by a session's token; the whole answer."""
        answer = self.bearing(token, "POST", "/users/me/tokens", {"name": name, **fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def audited(self, action: str) -> list[str | None]:
        """What the entries of an action are about, oldest first."""
        engine = sqlite_engine(self.folder / "beray.db")
        with engine.begin() as connection:
            query = text("SELECT resource FROM audit WHERE action = :action ORDER BY id")
            about = list(connection.execute(query, {"action": action}).scalars())
        engine.dispose()
        return about

    def execute(self, sql: str, **params: Any) -> Any:
        """Run one statement on the database, behind the server's back; the first column of its first row."""
        engine = sqlite_engine(self.folder / "beray.db")
        with engine.begin() as connection:
            result = connection.execute(text(sql), params)
            value = result.scalar() if result.returns_rows else None
        engine.dispose()
        return value

    def logout(self, token: str) -> requests.Response:
        return self.post("/auth/logout", headers={"Authorization": f"Bearer {token}"})


def register_with(server: AuthServer, code: str, email: str = EMAIL) -> requests.Response:
    return server.post("/auth/register", {"email": email, "verification_code": code, "password": PASSWORD})


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def make_accounts(
    settings: Settings,
    database: SqliteDatabase,
    *,
    clock: FakeClock,
    passwords: Passwords,
    mailer: Mailer,
) -> Accounts:
    """Accounts as `open_accounts` makes them, but for the given parts."""
    return Accounts(
        database,
        clock,
        codes=Codes(KEY, minutes=settings.code_minutes, clock=clock),
        passwords=passwords,
        rates=Rates(clock, is_on=settings.rate_limits),
        mailer=mailer,
        clients=ClientAddresses(settings.trusted_proxies),
        trail=AuditTrail(database, clock),
        token_days=settings.token_days,
    )


def make_database(folder: Path) -> SqliteDatabase:
    """A database with the schema; not open yet."""
    path = folder / "beray.db"
    make_sqlite(path)
    return SqliteDatabase(path)


@contextmanager
def run_auth_server(
    folder: Path, *, mailer: Mailer | None = None, hasher: CountingHasher | None = None, **settings: Any
) -> Iterator[AuthServer]:
    """Run the server until the block ends."""
    clock, hasher = FakeClock(), hasher or CountingHasher()
    chosen = Settings(data_dir=folder, **settings)
    server = AuthServer("", folder, clock, hasher)
    database = make_database(folder)
    mailer = mailer or make_mailer(chosen, clock, server.announced.append)
    accounts = make_accounts(chosen, database, clock=clock, passwords=Passwords(hasher), mailer=mailer)
    database.deliver = accounts.hear
    accounts.remember_tokens()
    app = _app(accounts, database)
    with served(app) as server.url:
        yield server


def _app(accounts: Accounts, database: SqliteDatabase) -> Edge:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database.open()
        yield
        await accounts.close()
        database.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(build_router(accounts))

    install_error_handlers(app)
    return Edge(app, default_language="zh", max_body_bytes=2 << 20, clients=accounts.clients)
