"""Talking to a task: `send`, and the answer to a question that is asked at this terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App, Server
from beray.cli.language import say
from beray.cli.options import common, pass_app
from beray.cli.program import program_name
from beray.cli.tasks import read_text
from beray.cli.terminal import Terminal

if TYPE_CHECKING:
    from beray.client import BeRayClient

JsonObject = Mapping[str, Any]


@click.command(help=say("help.send"))
@click.argument("task_id", metavar="ID", type=int)
@click.argument("words", metavar="TEXT", nargs=-1)
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def send(app: App, *, task_id: int, words: tuple[str, ...], is_json: bool) -> None:
    content = (read_text(sys.stdin.buffer) if words == ("-",) else " ".join(words)).strip()
    if not content:
        raise click.UsageError(say("usage.no_message", program=program_name()))
    with app.connect() as client:
        task = client.send_message(task_id, content)
    if is_json:
        app.terminal.result(formats.json_page(task))
        return
    key = "send.begun" if task["status"] == "queued" and task["run"] > 1 else "send.told"
    app.terminal.result(say(key, program=program_name(), id=task_id, run=task["run"]))


def ask_here(app: App, server: Server, event: JsonObject) -> None:
    """Let the person at the terminal answer a question, unless that has been done elsewhere.

    What they type is waited for without a deadline; Ctrl-C does what it does at any other time.
    """
    task_id, question_id = event["task_id"], event["question_id"]
    with app.client_of(server) as client:
        if not _is_open(client, task_id, question_id):
            return
    answer = _read_answer(app.terminal, event.get("choices") or ())
    if answer is None:
        app.note(say("note.answer_by", program=program_name(), id=task_id))
        return
    with app.client_of(server) as client:
        if _is_open(client, task_id, question_id):
            client.send_message(task_id, answer)
        else:  # a message now would be none of its answer, and might begin a further run
            app.note(say("note.question_over"))


def _is_open(client: "BeRayClient", task_id: int, question_id: str) -> bool:
    question = client.get_task(task_id, events="none")["question"]
    return question is not None and question.get("question_id") == question_id


def _read_answer(terminal: Terminal, choices: Sequence[str]) -> str | None:
    """What is typed, a number standing for its choice; None at the end of the input, or for an empty line."""
    terminal.prompt("› ")
    typed = sys.stdin.readline().strip()
    if typed.isdecimal() and 0 < int(typed) <= len(choices):
        return choices[int(typed) - 1]
    return typed or None
