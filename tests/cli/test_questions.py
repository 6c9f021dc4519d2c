"""A real task's question at the terminal, which is over before anybody types."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, OnTerminal
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import ServerProcess

ASKS = turns(Reply(calls=[call("ask_user", question="Which colour?", choices=["red", "a\0b"])]), Reply("Painted."))


@pytest.fixture
def asking(
    make_server: Callable[..., ServerProcess], home: Path
) -> Iterator[Callable[..., tuple[CommandLine, OnTerminal]]]:
    """Runs a task that asks, on a server with these settings, and waits for the prompt."""
    opened: list[OnTerminal] = []
    with ScriptedModel(ASKS) as model:

        def start(**settings: Any) -> tuple[CommandLine, OnTerminal]:
            named = {"model": "openai:scripted", "model_base_url": model.base_url, "model_api_key": "key"}
            server = make_server(**named, **settings).start()
            token = server.register("asked@example.com")
            beray = CommandLine(home, {"BERAY_BASE_URL": server.base_url, "BERAY_TOKEN": token})
            opened.append(beray.on_terminal("run", "paint it"))
            opened[0].read_until("› ")
            return beray, opened[0]

        yield start
        for terminal in opened:
            terminal.close()


def test_prompt_ends_with_the_questions_time(asking: Callable[..., tuple[CommandLine, OnTerminal]]) -> None:
    _, terminal = asking(answer_seconds=2)

    assert terminal.end() == 0
    assert "Painted." in terminal.shown


def test_prompt_ends_when_another_terminal_has_answered(
    asking: Callable[..., tuple[CommandLine, OnTerminal]],
) -> None:
    beray, terminal = asking()

    shown = beray("show", "1").out
    sent = beray("send", "1", "green")

    assert "2. a\N{REPLACEMENT CHARACTER}b" in shown
    assert sent.out.startswith("sent as the answer to its question")
    assert terminal.end() == 0
    assert "  › green\n" in terminal.shown


def test_choice_with_a_control_character_can_be_chosen(
    asking: Callable[..., tuple[CommandLine, OnTerminal]],
) -> None:
    _, terminal = asking()

    terminal.type("2\n")

    assert terminal.end() == 0
    assert "  › a\N{REPLACEMENT CHARACTER}b\n" in terminal.shown
