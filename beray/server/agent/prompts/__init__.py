"""What the model is told: the texts are the Markdown files beside this one.

`VERSION` counts their changes; tests hold what is sent against golden files of that version. The instructions are the
same for every request of a run, so that providers can cache them.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

VERSION: Final = 1

_PATHS: Final = "Paths are relative to the work_dir; nothing outside it can be written."
_EDIT: Final = "Prefer edit_file for small changes and write_file for new files."
_COMMANDS: Final = (
    "Each command runs in a sandbox of its own: nothing stays running after it, standard input is empty, and there may"
    " be no network. No command may ask questions: pass flags such as -y."
)
_BACKGROUND: Final = (
    "Don't start servers in the foreground. What is to go on beside your next steps runs with background=true, and ends"
    " with the task. No other command can reach its ports: start a server and what talks to it in one command."
)
_ASK: Final = (
    "The user may be away. Ask with ask_user only if you can't go on without the answer, one question at a time;"
    " otherwise choose sensibly, and say what you chose."
)
_DO_NOT_ASK: Final = (
    "Nobody can answer questions while you work. Where the task leaves something open, choose sensibly and say what you"
    " chose."
)
_FINISH: Final = "call finish with a summary and the files that are the result."
_ANSWER: Final = "answer with a summary; an answer without a tool call ends the task."


def system_prompt(tools: Sequence[str]) -> str:
    """The instructions for a run that may use `tools`."""
    return _text("system").format(
        questions=_ASK if "ask_user" in tools else _DO_NOT_ASK,
        tools="\n".join(f"- {told}" for told in _about_tools(set(tools))),
        ending=_FINISH if "finish" in tools else _ANSWER,
    )


def _about_tools(tools: set[str]) -> Iterator[str]:
    yield _PATHS
    if {"edit_file", "write_file"} <= tools:
        yield _EDIT
    if tools & {"shell", "python"}:
        yield _COMMANDS
    if {"shell", "background"} <= tools:
        yield _BACKGROUND


def summary_prompt(record: str) -> str:
    """What asks for a summary of `record`."""
    return f"{_text('summarise')}\n{record}"


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8")
