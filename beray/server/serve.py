"""Run the server in this process until a signal, or until nobody needs it: `beray serve`, and the embedded server."""

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import json
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, cast

import uvicorn
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from beray import __version__
from beray.server.agent.budget import limits_of, money_settings
from beray.server.agent.models.choice import choose_models, probe_models
from beray.server.agent.models.prices import load_prices, require_prices
from beray.server.agent.tools.catalogue import CatalogueError
from beray.server.app import App, create_app
from beray.server.connection import connection_speaking
from beray.server.db.faults import reason
from beray.server.db.migrate import NewerSchemaError, OldServerError
from beray.server.db.open import SQLITE_FILE
from beray.server.errors import Refused
from beray.server.heap import end_start, keep_few_arenas
from beray.server.messages import Language
from beray.server.sandbox.base import Capabilities, SandboxUnavailable
from beray.server.settings import SettingError, Settings

SERVER_FILE: Final = "server.json"  # in the data folder: where the server that owns it can be reached; 0600
LOCK_FILE: Final = "server.lock"
CLOSE_SECONDS: Final = 3  # open streams end within 2 s of a signal; what still hangs then is cut
CLOSE_MOST_SECONDS: Final = 15.0  # from the signal; a close takes 1 to 5 s. What is cut is as after a crash
END_SECONDS: Final = 5.0  # after all has been closed; usually nothing is left and the process ends at once
BACKLOG: Final = 2048
FILES_MOST: Final = 1 << 16  # open at once; half of it may be connections, of 6 to 10 KB each (measured)
PROBE_BYTES: Final = 1 << 20  # a fresh database with both schemas takes 0.4 MB
IDLE_LOOK_SECONDS: Final = 5.0
SETTLED_SECONDS: Final = 30.0  # by then a start is over, however long the engine takes

log = logging.getLogger("beray")


class StartError(Exception):
    """The server can't start; the text says what is wrong and what to do."""


def run(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: What the operator set.
        announce: Shows a line to the operator: the banner, and codes that went to the outbox.

    Raises:
        SettingError: A setting can't be used (a model that is set but broken included).
        StartError: Something it needs can't be had.
    """
    keep_few_arenas()
    is_embedded = settings.database_url is None
    if is_embedded and settings.role != "all":
        raise SettingError(
            f"BERAY_ROLE={settings.role} needs a database that several processes can share: set BERAY_DATABASE_URL to"
            " postgresql://user:password@host:5432/database."
        )
    _prepare_data_dir(settings.data_dir, has_database=is_embedded)
    owning = _owned(settings.data_dir, is_shared=not is_embedded) if settings.role != "worker" else nullcontext(False)
    with owning as is_owner, _listening(settings) as listener:
        base_url = _base_url(settings, listener)
        own = replace(settings, port=listener.getsockname()[1])  # the search for local models skips our own port
        environ = os.environ  # noqa: TID251 - what operators keep there beside settings: keys, and secrets of MCP servers
        models = choose_models(own, environ, probe=probe_models)
        for setting in money_settings(limits_of(settings)):
            require_prices(load_prices(settings.prices), [*models.offered, *models.fallback], setting=setting)
        try:
            app = create_app(settings, models, announce=announce, environ=environ)
        except (SandboxUnavailable, CatalogueError) as error:
            raise StartError(str(error)) from error
        server_file = settings.data_dir / SERVER_FILE if is_owner else None
        web = _Uvicorn(app, open_most=_raise_file_limit() // 2)  # files and the database need descriptors too
        _Service(app, web, base_url=base_url, server_file=server_file, announce=announce).run(listener)
    _end_within(END_SECONDS, status=0)


def _raise_file_limit() -> int:
    """Let this process have as many files open as it may at most, which is more than what it begins with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MOST if hard == resource.RLIM_INFINITY else min(hard, FILES_MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _end_within(seconds: float, *, status: int) -> None:
    """End the process by then, whatever threads are left.

    The engine library's sleep for up to a minute between tries to reach a database that is away, and the interpreter
    would wait for them; a database that says nothing would hold the closing up for as long as it likes.
    """
    timer = threading.Timer(seconds, os._exit, args=(status,))
    timer.daemon = True
    timer.start()


class _Uvicorn(uvicorn.Server):
    """uvicorn that ends the streams before it waits for open connections, and leaves what follows a signal to us."""

    def __init__(self, app: App, *, open_most: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_speaking(cast(Language, app.settings.language), open_most=open_most),
                ws="none",  # there are none; an upgrade that is asked for is answered as the request it is
                lifespan="off",  # `_Service` opens the application: what fails there keeps its own words
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSE_SECONDS,
                timeout_keep_alive=75,  # longer than common proxies' 60 s, or they meet closed connections
                proxy_headers=False,  # X-Forwarded-For is judged by `trusted_proxies`
                backlog=BACKLOG,
            )
        )
        self._app = app
        self.when_serving: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests; who connected before is answered now."""
        await super().startup(sockets)
        if not self.should_exit:
            self.when_serving()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM; uvicorn's own raises them again at its end, before the application is closed.

        `_Service` does so before the loop runs: an exception raised out of a signal handler there would end in some
        callback, logged and lost, and the server would go on.
        """
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal has come."""
        _end_within(CLOSE_MOST_SECONDS, status=1)
        self._app.begin_close()
        super().handle_exit(sig, frame)


class _Service:
    """The application served on a socket, from opened to closed."""

    def __init__(
        self,
        app: App,
        web: _Uvicorn,
        *,
        base_url: str,
        server_file: Path | None,
        announce: Callable[[str], None],
    ) -> None:
        self._app = app
        self._settings = app.settings
        self._base_url = base_url
        self._server_file = server_file
        self._announce = announce
        self._uvicorn = web
        self._uvicorn.when_serving = self._begin_work
        self._starting: asyncio.Task[None] | None = None

    def run(self, listener: socket.socket) -> None:
        """Open, serve, close."""
        loop_factory = self._uvicorn.config.get_loop_factory()
        with self._uvicorn.capture_signals(), asyncio.Runner(loop_factory=loop_factory) as runner:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # what came meanwhile comes now
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        try:
            await self._open()
            watch = asyncio.create_task(self._exit_when_idle())
            await self._uvicorn.serve([listener])
            watch.cancel()
            await self._end_starting()
        finally:
            if self._server_file is not None:
                self._server_file.unlink(missing_ok=True)
            await self._app.close()

    async def _open(self) -> None:
        with self._explained():
            await self._app.open()
            if self._server_file is not None:
                await self._write_server_file(self._server_file)
        for line in banner(self._app, self._base_url):
            self._announce(line)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What can't be had becomes the reason why the server can't start."""
        try:
            yield
        except (SandboxUnavailable, NewerSchemaError, OldServerError) as error:
            raise StartError(str(error)) from error
        except (DBAPIError, OSError, Refused) as error:  # refused: the disk is full, or the database away
            raise self._cannot_open(error) from error

    def _begin_work(self) -> None:
        self._starting = asyncio.create_task(self._start_work())
        self._starting.add_done_callback(self._end_if_failed)

    async def _start_work(self) -> None:
        """Make the server ready, beside requests."""
        settling = asyncio.get_running_loop().call_later(SETTLED_SECONDS, end_start)  # however long the parts take
        with self._explained():
            await self._app.begin_work()
        for line in sandbox_lines(self._app.capabilities):
            self._announce(line)
        await self._app.has_tried_engine.wait()
        settling.cancel()
        end_start()

    def _end_if_failed(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and starting.exception() is not None:
            self._app.begin_close()
            self._uvicorn.should_exit = True

    async def _end_starting(self) -> None:
        """Wait for the start to end; raise what it failed by."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting

    def _cannot_open(self, error: DBAPIError | OSError | Refused) -> StartError:
        if (
            isinstance(error, OSError)
            and error.filename
            and Path(error.filename).is_relative_to(self._app.work_dirs_path)
        ):
            return StartError(
                f"The work_dirs cannot be written in {self._app.work_dirs_path}: {error.strerror}. "
                "Set BERAY_WORK_DIRS to a folder that all processes share and may write."
            )
        if not self._app.database.is_shared:
            return _unusable(self._settings.data_dir, error)
        url = self._app.database.url
        return StartError(
            f"The database {_shown(url)} cannot be used: {reason(error, url)}. "
            "Check BERAY_DATABASE_URL, that PostgreSQL runs there, and that the database exists."
        )

    async def _write_server_file(self, path: Path) -> None:
        content: dict[str, Any] = {"base_url": self._base_url, "pid": os.getpid(), "version": __version__}
        if self._settings.local_user:
            _, content["token"] = await self._app.accounts.ensure_local_user()
        await asyncio.to_thread(_write_private, path, json.dumps(content))

    async def _exit_when_idle(self) -> None:
        """End the server when for `idle_exit_seconds` nobody asked anything and no task was active."""
        limit = self._settings.idle_exit_seconds
        if limit == 0:
            return
        idle, seen = 0.0, -1
        look = min(IDLE_LOOK_SECONDS, limit / 2)
        while idle < limit:
            await asyncio.sleep(look)
            requests = self._uvicorn.server_state.total_requests
            is_busy = requests != seen or self._app.streams.count > 0 or await self._app.count_active_tasks() > 0
            idle, seen = (0.0 if is_busy else idle + look), requests
        log.info("nobody needs the server any more; ending")
        self._app.begin_close()
        self._uvicorn.should_exit = True


def banner(app: App, base_url: str) -> list[str]:
    """What the operator reads at start: address, data, model; what confines the tasks follows when it is known."""
    role = app.settings.role
    first = f"BeRay {__version__} worker  {base_url}/ready" if role == "worker" else f"BeRay {__version__}  {base_url}"
    lines = [
        first if role == "worker" else f"{first}  ({base_url}/docs)",
        f"data     {app.settings.data_dir}",
        f"model    {app.models.default.operator_notice('zh' if app.settings.language == 'zh' else 'en')}",
    ]
    if app.database.is_shared:
        lines += [
            f"database {_shown(app.database.url)}",
            f"files    {app.work_dirs_path} (must be the same volume for all processes)",
        ]
    return lines


def _shown(url: URL) -> str:
    """Where a database is, without what is secret in its URL (a key's password may be among the options)."""
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def sandbox_lines(capabilities: Capabilities | None) -> list[str]:
    """What the operator reads of what confines the tasks."""
    if capabilities is None:
        return ["tasks    run in other processes (beray worker)"]
    open_rows = [
        f"{row.name} ({row.note})" if row.note else row.name for row in capabilities.confinements if not row.is_confined
    ]
    shown = f"sandbox  {capabilities.backend}" + (f"; not confined: {', '.join(open_rows)}" if open_rows else "")
    notes = [f"{row.name}: {row.note}" for row in capabilities.confinements if row.is_confined and row.note]
    return [shown, *(f"         {note}" for note in (*notes, *capabilities.notes))]


def _prepare_data_dir(data_dir: Path, *, has_database: bool) -> None:
    probe = data_dir / ".writable"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        if has_database:
            _make_private(data_dir / SQLITE_FILE)  # SQLite gives its -wal and -shm files the mode of the database
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        raise _unusable(data_dir, error) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _unusable(data_dir: Path, error: OSError | DBAPIError | Refused) -> StartError:
    why, remedy = str(error), "or make room on its disk"
    if isinstance(error, DBAPIError):
        why = str(error.orig)
    elif isinstance(error, OSError):
        why = error.strerror or why
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            remedy = "or give yourself the right to write there"
    return StartError(
        f"The data folder {data_dir} cannot be written: {why}. "
        f"Choose another with --data DIR or BERAY_DATA_DIR, {remedy}."
    )


@contextmanager
def _owned(data_dir: Path, *, is_shared: bool) -> Iterator[bool]:
    """Hold the data folder for this process: two servers on one SQLite file would recover each other's runs.

    Without SQLite in it several may use it; whether this one was the first. A worker owns nothing: the one that owns it
    is found by who runs `beray run`.
    """
    with (data_dir / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if is_shared:
                yield False
                return
            raise StartError(
                f"Another server already uses the data folder {data_dir}{_owner(lock)}. "
                "Stop it first, or give this one its own with --data DIR."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield True


def _owner(lock: IO[str]) -> str:
    lock.seek(0)
    pid = lock.read(20).strip()
    return f" (process {pid})" if pid.isdigit() else ""


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else asyncio's own loop delays events by 40 ms
        try:
            listener.bind((settings.host, settings.port))
            # Listening at once: whoever connects while we open is answered when we are open.
            listener.listen(BACKLOG)
        except OSError as error:
            raise StartError(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Choose another port with --port N (0 takes a free one), or stop what uses it."
            ) from error
        listener.setblocking(False)
        yield listener


def _base_url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = settings.host
    with contextlib.suppress(ValueError):  # a name, not an address
        if ipaddress.ip_address(host).is_unspecified:
            host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _write_private(path: Path, content: str) -> None:
    """Write a file only we can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    part.rename(path)
