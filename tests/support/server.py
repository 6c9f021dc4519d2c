"""A real server in a process of its own: `beray serve`, or `worker`, on a loopback port and a folder of the test's."""

import email
import email.policy
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import requests
from sqlalchemy import text

from beray.server.db.sqlite import sqlite_engine
from tests.support.starter import ForkedProcess, starter
from tests.support.waiting import wait_until

START_SECONDS = 60.0
PASSWORD = "a_very_secure_password"
BERAY = (sys.executable, "-m", "beray.cli.main")  # the command `beray`, in this environment
CODE = re.compile(r"\b([0-9]{6})\b")


def failing_start(data: Path) -> str:
    """What a server says on standard error that can't start; its settings are those of the environment."""
    command = [*BERAY, "serve", "--port", "0", "--data", str(data)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0, ended.stdout
    assert "Traceback" not in ended.stderr
    return ended.stderr


class ServerProcess:
    """One server. `start` waits until it is ready; `stop` ends it as an operator would; `kill` as a crash would.

    Args:
        data_dir: Its data folder, as the test sees it.
        port: 0 takes a free one.
        named: The same folder as the server sees it, if that is another path.
        through: A program to be run by.
        settings: `BERAY_*` in lower case, without the prefix.
    """

    program: tuple[str, ...] = BERAY
    command: tuple[str, ...] = ("serve",)
    is_forked = False  # by a process that has imported it before; set for tests, never for what is measured

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        named: Path | None = None,
        through: tuple[str, ...] = (),
        **settings: object,
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self._named = named or data_dir
        self._through = through
        self.settings = {f"BERAY_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.base_url = ""

    def start(self) -> "ServerProcess":
        self.launch()
        self.base_url = wait_until(self._find_url, seconds=START_SECONDS, what="the server's address")
        wait_until(self.is_ready, seconds=START_SECONDS, what=f"a ready server ({self.log_tail()})")
        return self

    def start_again(self) -> "ServerProcess":
        """`start` at the address it had before `stop` or `kill`."""
        self.port = self.bound_port
        return self.start()

    @property
    def bound_port(self) -> int:
        """The port it has, or had."""
        return int(self.base_url.rpartition(":")[2])

    def launch(self) -> None:
        """Start the process without waiting."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "server.json").unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        environment |= {
            "BERAY_MODEL": "rules",
            "BERAY_MODEL_PROBE": "0",
            "BERAY_RATE_LIMITS": "0",
            "BERAY_LOCAL_USER": "0",
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }
        arguments = [*self.command, "--port", str(self.port), "--data", str(self._named)]
        if self.is_forked and self.program == BERAY and not self._through:
            self.process = starter().start(arguments, environment, self.log_path)
            return
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._through, *self.program, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    @property
    def log_path(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        return self.log_text()[-3000:]

    def _find_url(self) -> str | None:
        self.check_alive()
        path = self.data_dir / "server.json"
        return cast(str, json.loads(path.read_text())["base_url"]) if path.exists() else None

    def check_alive(self) -> None:
        """Fail with the end of its log if the process has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log_tail()}")

    def is_ready(self) -> bool:
        """Asked by the plainest client: a start asks 30 times, and a run of the tests has hundreds of starts."""
        self.check_alive()
        connection = http.client.HTTPConnection("127.0.0.1", self.bound_port, timeout=10)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except TimeoutError:  # a crowded machine; who waits has a deadline of its own
            return False
        finally:
            connection.close()

    def mails(self) -> list[EmailMessage]:
        """The outbox, oldest first."""
        files = sorted((self.data_dir / "outbox").glob("*.eml"))
        policy = email.policy.default
        return [cast(EmailMessage, email.message_from_bytes(file.read_bytes(), policy=policy)) for file in files]

    def code_for(self, address: str) -> str:
        """The code in the newest mail to an address."""
        for mail in reversed(self.mails()):
            if mail["To"] == address:
                body = mail.get_body()
                assert body is not None
                found = CODE.search(body.get_content())
                assert found is not None
                return found[1]
        raise AssertionError(f"no mail to {address}")

    def register(self, address: str, password: str = PASSWORD) -> str:
        """Make an account the way a person does; its token."""
        api = f"{self.base_url}/api/v1/auth"
        requests.post(f"{api}/request-verification-code", json={"email": address}, timeout=30).raise_for_status()
        body = {"email": address, "verification_code": self.code_for(address), "password": password}
        answer = requests.post(f"{api}/register", json=body, timeout=30)
        answer.raise_for_status()
        return cast(str, answer.json()["access_token"])

    def promote(self, address: str) -> None:
        """Make a user an admin, behind the back of the server, whose database is SQLite."""
        engine = sqlite_engine(self.data_dir / "beray.db")
        with engine.begin() as connection:
            connection.execute(text("UPDATE user_account SET is_admin = 1 WHERE email = :email"), {"email": address})
        engine.dispose()

    def expire_codes(self, address: str) -> None:
        """Have the codes sent to an address be too old, behind the back of the server, whose database is SQLite."""
        engine = sqlite_engine(self.data_dir / "beray.db")
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE verification_code SET expires_at = created_at WHERE email = :email"), {"email": address}
            )
        engine.dispose()

    def stop(self) -> int:
        """Send SIGTERM and wait; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL and wait."""
        return self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
            raise AssertionError(f"the server did not end within 20 s:\n{self.log_tail()}") from None


def _is_foreign(name: str) -> bool:
    """Whether a variable could change how the server works."""
    return name.startswith("BERAY_") or name.endswith(("_API_KEY", "_BASE_URL"))
