"""A scope of systemd for the fork server, where the server has no subtree of control groups to make groups in.

`systemd-run --scope` moves itself into a new scope and then becomes the command it was given: process number, parent
and descriptors stay. The scope goes with its last process; a fork server that is started anew gets another one.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.guard.cgroup import SCOPE_PREFIX, SYSTEMD, is_version_2, lacks_place

TRY_SECONDS = 10.0  # a bus that does not answer must not keep the server from starting for ever


@dataclass(frozen=True)
class Scope:
    """How the fork server is started.

    Attributes:
        runner: `systemd-run` and its options; empty when it stays where the server is.
        env: What `systemd-run` itself needs to find systemd.
        lacks: Why there is no scope, if one was wanted.
    """

    runner: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    lacks: str = ""

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], Mapping[str, str]]:
        """Command line and environment that run `command` with no other variables than `env`."""
        if not self.runner:
            return [*command], env
        unit = f"--unit={SCOPE_PREFIX}{secrets.token_hex(4)}"
        clean = [shutil.which("env") or "/usr/bin/env", "-i", *(f"{name}={value}" for name, value in env.items())]
        return [*self.runner, unit, "--", *clean, *command], self.env or {}


def find_scope() -> Scope:
    """A scope where one is wanted and systemd gives one. Blocks while systemd is asked, for `TRY_SECONDS` at most."""
    if lacks_place() is None or not is_version_2() or not Path(SYSTEMD).exists():
        return Scope()
    program = shutil.which("systemd-run")
    if program is None:
        return Scope(lacks="the program systemd-run is not installed")
    scope = _scope(program)
    reason = _try(scope)
    return scope if reason is None else Scope(lacks=f"systemd gives no scope: {reason}")


def _scope(program: str) -> Scope:
    """What the server has in its environment is nobody's business: where a user's manager listens is known."""
    options = ("--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--description=Commands of BeRay's agent")
    if os.geteuid() == 0:
        return Scope((program, *options), {})
    return Scope((program, "--user", *options), {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"})


def _try(scope: Scope) -> str | None:
    """Why it can't be had."""
    command, env = scope.start(["true"], {"PATH": os.defpath})
    try:
        ended = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TRY_SECONDS:g} s"
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    if ended.returncode == 0:
        return None
    lines = ended.stderr.decode(errors="replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), f"status {ended.returncode}")
