"""When the fork server gets a scope of systemd, and what happens when systemd gives none.

Here a script stands in for `systemd-run`; that a real one does it is tested in `test_cgroup.py`.
"""

import os
import shlex
from pathlib import Path

import pytest

from beray.server.sandbox import scope
from beray.server.sandbox.scope import Scope, find_scope
from tests.support.sandbox_cases import open_box

BECOME = 'until [ "$1" = -- ]; do shift; done; shift; exec "$@"'


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where systemd runs and the server has no subtree of its own; returned is its folder of programs."""
    monkeypatch.setattr(scope, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(scope, "lacks_place", lambda: "it is shared")
    monkeypatch.setattr(scope, "is_version_2", lambda: True)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs


def install(folder: Path, script: str) -> Path:
    """A `systemd-run` that notes how it is called, and then does this."""
    calls = folder / "calls"
    program = folder / "systemd-run"
    program.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(calls))}\nenv >> {calls}.env\n{script}\n')
    program.chmod(0o755)
    return calls


def test_where_no_systemd_runs_nobody_is_asked(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(systemd, BECOME)
    monkeypatch.setattr(scope, "SYSTEMD", str(systemd / "absent"))

    assert find_scope() == Scope()
    assert not calls.exists()


@pytest.mark.parametrize(("name", "answer"), [("lacks_place", None), ("is_version_2", False)])
def test_where_no_scope_is_of_use_nobody_is_asked(
    name: str, answer: object, systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has a subtree of its own; or memory is counted by version 1, where scopes are not handed over."""
    calls = install(systemd, BECOME)
    monkeypatch.setattr(scope, name, lambda: answer)

    assert find_scope() == Scope()
    assert not calls.exists()


def test_systemd_that_answers_is_asked_for_each_fork_server(systemd: Path) -> None:
    calls = install(systemd, BECOME)

    found = find_scope()
    commands = [found.start(["program", "argument"], {"NAME": "value"}) for _ in range(2)]

    assert found.lacks == ""
    assert len(calls.read_text().splitlines()) == 1
    assert all(command[-4:] == ["-i", "NAME=value", "program", "argument"] for command, _ in commands)
    units = {next(part for part in command if part.startswith("--unit=beray-commands-")) for command, _ in commands}
    assert len(units) == 2
    assert ("--user" in commands[0][0]) == (os.geteuid() != 0)


def test_systemd_run_sees_nothing_of_the_servers_environment(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERAY_SECRET", "canary")
    calls = install(systemd, BECOME)

    assert find_scope().runner

    assert "canary" not in Path(f"{calls}.env").read_text()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Failed to connect to bus' >&2; exit 1", "systemd gives no scope: Failed to connect to bus"),
        ("exit 3", "systemd gives no scope: status 3"),
        ("exec tail -f /dev/null", "systemd gives no scope: no answer within 0.2 s"),
    ],
)
def test_why_systemd_gives_none_is_told(
    script: str, reason: str, systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "no answer" in reason:
        monkeypatch.setattr(scope, "TRY_SECONDS", 0.2)
    install(systemd, script)

    assert find_scope() == Scope(lacks=reason)


def test_a_machine_without_the_program_is_told(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(systemd))

    assert find_scope() == Scope(lacks="the program systemd-run is not installed")


async def test_a_sandbox_works_on_when_systemd_gives_no_scope_any_more(systemd: Path, service_dir: Path) -> None:
    """The first fork server has had one; when it is gone and systemd fails, the next does without."""
    install(systemd, BECOME)
    async with open_box("none", service_dir / "scope-lost") as box:
        first = box.sandbox.fork_server_pid
        assert first is not None
        assert Path(f"/proc/{first}/environ").read_bytes().count(b"\0") <= 1  # LD_LIBRARY_PATH, if anything
        install(systemd, "exit 1")
        os.kill(first, 9)

        ended = await box.run("true")

        assert ended.code == 0
        assert box.sandbox.fork_server_pid != first
