"""Talking to a task: `send`."""

import sys
from collections.abc import Mapping
from typing import Any

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App
from beray.cli.language import say
from beray.cli.options import common, pass_app
from beray.cli.program import program_name
from beray.cli.questions import open_question
from beray.cli.tasks import read_text


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
        question = open_question(client, task_id)
        question_id = None if question is None else question.get("question_id")
        task = client.send_message(task_id, content, question_id=question_id)
    if is_json:
        app.terminal.result(formats.json_page(task))
        return
    key = "send.answered" if question_id is not None else _what_became_of_it(task)
    app.terminal.result(say(key, program=program_name(), id=task_id, run=task["run"]))


def _what_became_of_it(task: Mapping[str, Any]) -> str:
    return "send.begun" if task["status"] == "queued" and task["run"] > 1 else "send.told"
