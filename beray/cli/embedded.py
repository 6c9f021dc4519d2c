"""The embedded server: found by `server.json` in the data folder, or started in the background.

It runs apart from the terminal (a session of its own), takes a free loopback port, makes a local user whose token only
the folder's owner can read, and ends itself some time after the last task and client. Whatever changes it is done under
one file lock, so that two `beray run` at once make one server.

A background server keeps the settings it was started with. Whoever sets a model's key and runs again wants the new
settings: `run` then replaces a server that has nothing to do, and says so where it can't. Only a server that we started
is replaced, which `server.start.json` tells: its pid, and a digest of the environment it got.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from beray import __version__
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.terminal import plain

IDLE_SECONDS: Final = 600
READY_SECONDS: Final = 90.0  # the first start on a slow machine compiles every module of the server
LOCK_SECONDS: Final = READY_SECONDS + 10
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05
PROBE_SECONDS: Final = 5.0
LOG_LINES: Final = 12

# The command line's own variables, and those the starter sets: they make no different server.
OWN_VARIABLES: Final = frozenset(
    {"BERAY_TOKEN", "BERAY_BASE_URL", "BERAY_DATA_DIR", "BERAY_LOCAL_USER", "BERAY_IDLE_EXIT_SECONDS"}
)
MODEL_VARIABLE_ENDS: Final = ("_API_KEY", "_BASE_URL")


@dataclass(frozen=True)
class ServerFile:
    """What `server.json` says; no token where the server has no local user."""

    base_url: str
    token: str | None
    pid: int
    version: str


Wait = Callable[[Callable[[], str] | None], None]
"""Shows what is being waited for (`Terminal.status`)."""


class EmbeddedServer:
    """The embedded server of one data folder."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str], wait: Wait) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "server.log"
        self._environ = environ
        self._wait = wait

    def has_data(self) -> bool:
        """Whether a server has ever run here, so that there may be tasks."""
        try:
            return (self.data_dir / "beray.db").exists()
        except OSError:
            return False

    def find(self) -> ServerFile | None:
        """The server that runs here now, if it is well."""
        file = self._read_server_file()
        return file if file is not None and _is_process(file.pid) and _ready_state(file) is not None else None

    def ensure(self, *, note: Callable[[str], None], has_fresh_settings: bool) -> ServerFile:
        """The running server, or a newly started one.

        Args:
            note: Is told what was done, one line each.
            has_fresh_settings: Replace an idle server that was started with other settings.

        Raises:
            CliError: It could not be started; says why, with the end of its log.
        """
        running = self.find()
        if running is not None and not (has_fresh_settings and self._is_outdated(running)):
            return self._await_ready(running.pid)
        self._make_data_dir()
        with self._lock():
            running = self.find()  # somebody else may have started it meanwhile
            if running is not None and has_fresh_settings and self._is_outdated(running):
                running = self._retire(running, note)
            return self._start(note) if running is None else self._await_ready(running.pid)

    def make_way(self, *, note: Callable[[str], None]) -> None:
        """End the background server, if it is ours and has nothing to do, so that another can have the data folder."""
        if not self._was_started_by_us(self.find()):
            return  # above all no lock: a background server comes by here too, while its starter holds it
        with self._lock():
            running = self.find()
            if running is not None and self._was_started_by_us(running) and not _has_unfinished_tasks(running):
                note(say("embedded.makes_way", pid=running.pid))
                self._end_running(running)

    def _read_server_file(self) -> ServerFile | None:
        content = _read_json(self.data_dir / "server.json")
        try:
            return ServerFile(
                base_url=str(content["base_url"]).rstrip("/"),
                token=content.get("token"),
                pid=int(content["pid"]),
                version=str(content["version"]),
            )
        except (KeyError, ValueError, TypeError):
            return None

    def _make_data_dir(self) -> None:
        try:
            if not self.data_dir.exists():
                self.data_dir.mkdir(parents=True)
                self.data_dir.chmod(0o711)  # a sandbox's uid passes through to its work_dir and lists nothing
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> CliError:
        what = say("embedded.not_writable", path=self.data_dir, reason=error.strerror)
        return CliError(what, say("embedded.not_writable.remedy"), Exit.ERROR)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            descriptor = os.open(self.data_dir / "server.start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            self._wait(lambda: say("embedded.waiting"))
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise CliError(say("embedded.locked"), say("embedded.see_log", path=self.log_path), Exit.NETWORK)
                time.sleep(POLL_SECONDS)
            yield
        finally:
            self._wait(None)
            os.close(descriptor)

    # settings

    def _digest(self, salt: str) -> str:
        """Of the environment that matters to a server; salted, so that a guessed key can't be looked up in a table."""
        relevant = {
            name: value
            for name, value in self._environ.items()
            if (name.startswith("BERAY_") or name.endswith(MODEL_VARIABLE_ENDS)) and name not in OWN_VARIABLES
        }
        content = json.dumps([__version__, sorted(relevant.items())]).encode("utf-8", "surrogatepass")
        return hmac.new(salt.encode(), content, hashlib.sha256).hexdigest()

    def _is_outdated(self, running: ServerFile) -> bool:
        """Whether we started it, and with other settings than those of now."""
        start = self._start_file()
        return start.get("pid") == running.pid and start.get("settings") != self._digest(str(start.get("salt")))

    def _was_started_by_us(self, running: ServerFile | None) -> bool:
        return running is not None and self._start_file().get("pid") == running.pid

    def _start_file(self) -> dict[str, Any]:
        return _read_json(self.data_dir / "server.start.json")

    def _retire(self, running: ServerFile, note: Callable[[str], None]) -> ServerFile | None:
        """End the server so that one with the new settings can start; give it back if it is at work."""
        if _has_unfinished_tasks(running):
            note(say("embedded.keeps_settings", pid=running.pid))
            return running
        note(say("embedded.new_settings"))
        self._end_running(running)
        return None

    def _end_running(self, running: ServerFile) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_process(running.pid):
            if time.monotonic() > deadline:
                remedy = say("embedded.see_log", path=self.log_path)
                raise CliError(say("embedded.does_not_end", pid=running.pid), remedy, Exit.NETWORK)
            time.sleep(POLL_SECONDS)

    # start

    def _start(self, note: Callable[[str], None]) -> ServerFile:
        process = self._spawn()
        self._write_start_file(process.pid)
        try:
            file = self._await_ready(process.pid, process)
        except CliError:
            _end(process)
            raise
        process.returncode = 0  # it lives on without us, which Popen would warn of at our end
        note(say("embedded.started", path=self.data_dir, minutes=round(self._idle_seconds() / 60)))
        return file

    def _idle_seconds(self) -> int:
        set_by_user = self._environ.get("BERAY_IDLE_EXIT_SECONDS", "")
        return int(set_by_user) if set_by_user.isdigit() else IDLE_SECONDS

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "beray.cli.main", "serve", "--host", "127.0.0.1", "--port", "0"]
        environ = {
            **self._environ,
            "BERAY_LOCAL_USER": "1",
            "BERAY_IDLE_EXIT_SECONDS": str(self._idle_seconds()),
            "BERAY_DATA_DIR": str(self.data_dir),
            "PYTHONUNBUFFERED": "1",
        }
        try:
            with self._new_log() as log:
                return subprocess.Popen(
                    command,
                    env=environ,
                    cwd=self.data_dir,  # `-m` looks for modules in the current folder first: this one is ours
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise self._not_writable(error) from error

    def _new_log(self) -> Any:
        """A fresh log; the one before stays as `server.log.1`."""
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_name("server.log.1"))
        return os.fdopen(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")

    def _await_ready(self, pid: int, process: "subprocess.Popen[bytes] | None" = None) -> ServerFile:
        """Wait until the server with that pid can work; `process` is it where we started it."""
        began = time.monotonic()
        try:
            while (file := self._ready_file(pid, process)) is None:
                self._wait(lambda: say("embedded.starting", seconds=int(time.monotonic() - began)))
                if time.monotonic() > began + READY_SECONDS:
                    raise self._did_not_start(say("embedded.late", seconds=int(READY_SECONDS)))
                time.sleep(POLL_SECONDS)
        finally:
            self._wait(None)
        return file

    def _ready_file(self, pid: int, process: "subprocess.Popen[bytes] | None") -> ServerFile | None:
        """The server's file once it is ready; None while it may still become so."""
        file = self._read_server_file()
        state = _ready_state(file) if file is not None and file.pid == pid else None
        if state is not None and state.is_ready:
            return file
        if state is not None and state.hints:
            raise self._did_not_start(say("embedded.unavailable"), hints=state.hints)
        if process is not None and process.poll() is not None:
            raise self._did_not_start(say("embedded.ended", code=process.returncode))
        if process is None and not _is_process(pid):
            raise self._did_not_start(say("embedded.gone"))
        return None

    def _did_not_start(self, what: str, *, hints: tuple[str, ...] = ()) -> CliError:
        details = hints or self._log_end()
        return CliError(what, say("embedded.see_log", path=self.log_path), Exit.NETWORK, details=details)

    def _log_end(self) -> tuple[str, ...]:
        try:
            content = self.log_path.read_bytes()[-20_000:].decode("utf-8", "replace")
        except OSError:
            return ()
        return tuple(line for line in plain(content).splitlines() if line.strip())[-LOG_LINES:]

    def _write_start_file(self, pid: int) -> None:
        path = self.data_dir / "server.start.json"
        salt = secrets.token_hex(16)
        content = json.dumps({"pid": pid, "salt": salt, "settings": self._digest(salt)})
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as start:
            start.write(content)


@dataclass(frozen=True)
class ReadyState:
    """What `/ready` says: all is well, or the parts that will not become so by waiting, each with its remedy."""

    is_ready: bool
    hints: tuple[str, ...]


def ready_state(content: Mapping[str, Any]) -> ReadyState:
    """The answer of `/ready` in short."""
    checks = content.get("checks")
    bad = [
        f"{name}: {plain(str(check.get('hint') or check.get('state')))}"
        for name, check in (checks.items() if isinstance(checks, Mapping) else ())
        if isinstance(check, Mapping) and check.get("state") == "failed"
    ]
    if content.get("status") == "unavailable" and not bad:
        bad = [plain(str(content))]
    return ReadyState(content.get("status") == "ready", tuple(bad))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_process(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for (a container without an init) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def _ready_state(file: ServerFile) -> ReadyState | None:
    """What the server says of itself; None if none answers, or one that does not know the token.

    A stale file's port may be another program's by now.
    """
    from beray.client import BeRayClient
    from beray.exceptions import APIError, BeRayException

    try:
        with BeRayClient(file.base_url, file.token, timeout=PROBE_SECONDS, max_retries=0) as client:
            state = ready_state(client.get_ready())
            if state.is_ready and file.token is not None:
                client.get_current_user()
            return state
    except APIError as error:
        return ReadyState(is_ready=False, hints=()) if error.status_code == 503 else None
    except (BeRayException, ValueError):
        return None


def _has_unfinished_tasks(file: ServerFile) -> bool:
    from beray.client import BeRayClient
    from beray.exceptions import BeRayException
    from beray.protocol.status import ENDED

    try:
        with BeRayClient(file.base_url, file.token) as client:
            return any(task["status"] not in ENDED for task in client.list_tasks())
    except BeRayException:
        return True  # what it does is not known: leave it alone


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server that did not become ready."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
