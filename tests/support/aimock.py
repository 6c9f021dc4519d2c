"""aimock, a model server by others, as a peer: it speaks OpenAI's and Anthropic's wires as its authors read them.

Its version and hash stand in tests/peers/. It is installed once a machine into the user's cache, by `npm ci`, which
runs none of its scripts; after that nothing but loopback is needed.
"""

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from tests.support.waiting import wait_until

PEERS = Path(__file__).parents[1] / "peers"
MADE_OF = ("package.json", "package-lock.json", ".npmrc")
LEAST_NODE = (20, 15)
INSTALL_SECONDS = 90
PROGRAM = "node_modules/@copilotkit/aimock/dist/cli.js"
_LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")


class NoAimock(Exception):
    """It can't be had here; the text says why."""


@functools.cache
def aimock_here() -> Path:
    """The program, installed when it is not there yet.

    Raises:
        NoAimock: Says why not.
    """
    _check_node()
    recipe = hashlib.sha256(b"".join((PEERS / name).read_bytes() for name in MADE_OF)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beray-tests"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoAimock(f"there is no cache to install it into: {error}") from error
    folder = cache / f"peers-{recipe}"
    with (cache / "peers.lock").open("w") as lock:  # test processes side by side install it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _install(cache, folder)
    return folder / PROGRAM


def _check_node() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NoAimock(f"{program} is not installed")
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    version = tuple(int(number) for number in re.findall(r"\d+", told)[:2])
    if version < LEAST_NODE:
        raise NoAimock(f"node {told.strip()} is too old for aimock, which needs 20.15")


def _install(cache: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as made:
        for name in MADE_OF:
            shutil.copy(PEERS / name, made)
        command = ["npm", "ci", "--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        try:
            done = subprocess.run(
                command, cwd=made, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as expired:
            raise NoAimock(f"npm ci took more than {INSTALL_SECONDS} s") from expired
        if done.returncode != 0:
            raise NoAimock(f"npm ci: {done.stderr.strip()[-300:]}")
        shutil.copytree(made, folder.with_suffix(".new"), dirs_exist_ok=True)
        folder.with_suffix(".new").rename(folder)


class Aimock:
    """One server of it, which answers from `fixtures` and knows nothing else (`--strict`). A context manager."""

    def __init__(self, folder: Path, fixtures: list[dict[str, Any]]) -> None:
        self._folder = folder
        self._fixtures = fixtures
        self.url = ""

    def __enter__(self) -> "Aimock":
        (self._folder / "fixtures.json").write_text(json.dumps({"fixtures": self._fixtures}))
        self._output = (self._folder / "aimock.log").open("w+b")
        command = ["node", str(aimock_here()), "--port", "0", "--host", "127.0.0.1", "--strict", "--validate-on-load"]
        self._process = subprocess.Popen(
            [*command, "--fixtures", str(self._folder / "fixtures.json")],
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            self.url = wait_until(self._address, what="aimock to listen")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What it was asked, and what it answered."""
        found: list[dict[str, Any]] = self._control("GET", "journal").json()
        return found

    def disturb(self, **rates: float) -> None:
        """From now on answer wrongly, such as `rateLimitRate=1`; without rates, rightly again."""
        if rates:
            self._control("POST", "chaos", rates)
        else:
            self._control("DELETE", "chaos")

    def _control(self, method: str, name: str, body: object = None) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, f"{self.url}/__aimock/{name}", json=body, timeout=10)
        answer.raise_for_status()
        return answer

    def _address(self) -> str | None:
        told = Path(self._output.name).read_text(errors="replace")
        assert self._process.poll() is None, f"aimock has ended: {told[-2000:]}"
        found = _LISTENING.search(told)
        return found[1] if found else None

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._output.close()
