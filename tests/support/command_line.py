"""Runs `beray` as people do: in a process of its own, on pipes or on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.starter import BERAY, Work, starter

COMMAND = [sys.executable, "-W", "error", "-m", BERAY]
SECONDS = 60.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """`beray` with a home of its own, so that nobody's login is seen."""

    home: Path
    variables: Mapping[str, str]
    is_forked: bool = True  # by a process that has imported it before, where it is called to its end

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BERAY_", "LC_")) and not name.endswith(("_API_KEY", "_BASE_URL"))
        }
        for name in ("CI", "NO_COLOR", "UV_RUN_RECURSION_DEPTH", "LANG"):
            inherited.pop(name, None)
        own = {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "BERAY_DATA_DIR": str(self.home / "data"),
            "LANG": "en_US.UTF-8",
            "PYTHONUTF8": "1",
            "TERM": "xterm-256color",
            "COLUMNS": "100",
        }
        return {**inherited, **own, **self.variables, **more}

    def popen(self, *arguments: str, **more: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment(**more),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str, stdin: bytes = b"", **more: str) -> Ended:
        if self.is_forked:
            work = Work(arguments, self.environment(**more), cwd=str(self.home), is_strict=True)
            done = starter().run(work, given=stdin, seconds=SECONDS)
        else:
            done = subprocess.run(
                [*COMMAND, *arguments],
                env=self.environment(**more),
                cwd=self.home,
                input=stdin,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def on_terminal(self, *arguments: str, **more: str) -> "OnTerminal":
        return OnTerminal([*COMMAND, *arguments], self.environment(**more), self.home)


class OnTerminal:
    """A command whose streams are a pseudo-terminal, which is its controlling one: Ctrl-C works."""

    def __init__(self, command: list[str], environment: Mapping[str, str], cwd: Path) -> None:
        self.shown = ""
        """All that came, escape sequences taken out."""
        self.raw = b""
        self._terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            env=dict(environment),
            cwd=cwd,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)

    def read_until(self, text: str, seconds: float = SECONDS) -> str:
        """Wait until `text` has been shown."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown; this was:\n{self.shown}")
        return self.shown

    def type(self, text: str) -> None:
        """Press keys; `\\x03` is Ctrl-C."""
        os.write(self._terminal, text.encode())

    def end(self, seconds: float = SECONDS) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self.process.wait(timeout=max(1.0, deadline - time.monotonic()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came in time; this was shown:\n{self.shown}")
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        self.shown = ESCAPES.sub("", self.raw.decode("utf-8", "replace")).replace("\r\n", "\n")
        return bool(data)


_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in a shell's background
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
