"""Agno's AgentOS beside BeRay: an environment of its own, made once by uv and kept in `.cache/`, and its server."""

import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Final

import requests

from benchmarks.peers.base import NotHere, Peer
from tests.support.waiting import wait_until

VERSION: Final = "3.1.10"
PACKAGES: Final = (f"agno[os]=={VERSION}", "openai", "sqlalchemy", "greenlet")  # it does not name what its SQLite needs
ROOT: Final = Path(__file__).parents[2]
ENVIRONMENT: Final = ROOT / ".cache" / "peers" / f"agno-{VERSION}"
SERVER: Final = Path(__file__).with_name("agno_server.py")
AGENT: Final = "hello"
INSTALL_SECONDS: Final = 120
SYSTEM_PATH: Final = "/usr/bin:/bin"  # BeRay's commands get their python from there too; an environment's starts slower
START_SECONDS: Final = 30


def agno_python() -> Path:
    """Python of an environment that has it, which is made at the first time.

    Raises:
        NotHere: It can't be made here.
    """
    python = ENVIRONMENT / "bin" / "python"
    ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENT.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ENVIRONMENT / "complete").exists():
            _make_environment(python)
            (ENVIRONMENT / "complete").touch()
    return python


def _make_environment(python: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NotHere("uv is not here to make its environment")
    until = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["exclude-newer"]
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "--exclude-newer", until, *PACKAGES],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
            raise NotHere(f"its environment could not be made: {last[0]}") from error
        except subprocess.TimeoutExpired as error:
            raise NotHere(f"its environment was not made within {INSTALL_SECONDS} s") from error


@contextmanager
def running_agno(python: Path, folder: Path, model_url: str, *, is_detached: bool) -> Iterator[Peer]:
    """The server, for as long as the block lasts.

    Args:
        python: See `agno_python`.
        folder: Its own, for its database and for the commands.
        model_url: Of an OpenAI-compatible server.
        is_detached: Runs are not bound to their request, and stored after each batch of tool calls, not only at their
            end. Its queue that survives the process, and then fails the run, needs PostgreSQL or Redis.
    """
    folder.mkdir()
    command = [str(python), "-P", str(SERVER), str(folder), model_url, AGENT, *(["detached"] if is_detached else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = SYSTEM_PATH
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            if not port:
                raise NotHere("its server did not start")
            base_url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_up(base_url), seconds=START_SECONDS, what="AgentOS")
            yield Peer(base_url, process.pid)
        finally:
            process.kill()


def _is_up(base_url: str) -> bool:
    try:
        return requests.get(f"{base_url}/health", timeout=START_SECONDS).ok
    except requests.ConnectionError:
        return False
