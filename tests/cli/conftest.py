"""Fixtures of the command line's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beray.cli.language import language
from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import TOKEN, FakeServer


@pytest.fixture(autouse=True)
def in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process speaks English and calls itself `beray`, wherever the tests run."""
    monkeypatch.setenv("BERAY_LANGUAGE", "en")
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    language.cache_clear()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A scripted server."""
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def beray(home: Path, fake: FakeServer) -> CommandLine:
    """`beray`, logged in to the scripted server."""
    return CommandLine(home, {"BERAY_BASE_URL": fake.base_url, "BERAY_TOKEN": TOKEN})


@pytest.fixture
def on_terminal(beray: CommandLine) -> Iterator[Callable[..., OnTerminal]]:
    """Runs `beray` on a terminal."""
    started: list[OnTerminal] = []

    def start(*arguments: str, **variables: str) -> OnTerminal:
        started.append(beray.on_terminal(*arguments, **variables))
        return started[-1]

    yield start
    for command in started:
        command.close()
