"""A task's questions, answered at this terminal.

The prompt stands as long as the question is open: an answer from elsewhere, the end of its time and the task's end are
events, and end it. What is typed is waited for without a deadline; Ctrl-C does what it does at any other time.
"""

import os
import sys
import termios
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from beray.cli.connection import App, Server
from beray.cli.failures import explain
from beray.cli.failures import show as show_failure
from beray.cli.feed import Feed
from beray.cli.language import say
from beray.cli.program import program_name
from beray.cli.screen import Screen

if TYPE_CHECKING:
    from beray.client import BeRayClient

PROMPT: Final = "› "
TYPED_MOST_BYTES: Final = 1 << 20  # an answer may have 100 000 characters

JsonObject = Mapping[str, Any]


class Questions:
    """Asks the person at the terminal.

    Args:
        app: The terminal.
        server: Where the answers go.
        screen: Shows what else happens meanwhile.
    """

    def __init__(self, app: App, server: Server, screen: Screen) -> None:
        self._app = app
        self._server = server
        self._screen = screen

    def ask(self, event: JsonObject, feed: Feed) -> None:
        """Have the question of `event`, which has been shown, answered; back once it is, or is over.

        Args:
            event: `input.requested`.
            feed: Gives what follows it; the event that ends the question is left in it.
        """
        if not self._is_open(event):
            return
        while (line := self._read_line(event, feed)) is not None:
            if not line:
                self._app.note(say("note.answer_by", program=program_name(), id=event["task_id"]))
                return
            answer = _meant(line, event)
            if not answer:
                self._screen.show(event)
            elif self._send(event, answer):
                return

    def _is_open(self, event: JsonObject) -> bool:
        """Whether the question still waits; it may have been asked long ago."""
        from beray.exceptions import BeRayException

        try:
            with self._app.client_of(self._server) as client:
                question = open_question(client, event["task_id"])
        except BeRayException:  # the events will tell
            return True
        return question is not None and question.get("question_id") == event["question_id"]

    def _read_line(self, event: JsonObject, feed: Feed) -> bytes | None:
        """The line that is typed, empty at the end of the input; None once the question is over."""
        descriptor, typed = sys.stdin.fileno(), b""
        with self._app.terminal.prompting(PROMPT):
            while not typed.endswith(b"\n") and len(typed) < TYPED_MOST_BYTES:
                while feed.comes_first(descriptor):
                    if _ends(event, feed.peek()):
                        termios.tcflush(descriptor, termios.TCIFLUSH)  # half a line is no answer to the next question
                        return None
                    self._screen.show(feed.take() or {})
                part = os.read(descriptor, 65536)
                if not part:
                    break
                typed += part
            if typed.endswith(b"\n"):
                self._app.terminal.end_prompt()
        return typed

    def _send(self, event: JsonObject, answer: str) -> bool:
        """Send the answer, if the question is still open; False if it was refused, which is shown."""
        from beray.exceptions import APIError, BeRayException

        try:
            with self._app.client_of(self._server) as client:
                client.send_message(event["task_id"], answer, question_id=event["question_id"])
        except BeRayException as error:
            if isinstance(error, APIError) and error.code == "question_closed":
                self._app.note(say("note.question_over"))
                return True
            show_failure(self._app.terminal, explain(error))
            return False
        return True


def open_question(client: "BeRayClient", task_id: int) -> JsonObject | None:
    """The question that the task waits with."""
    question: JsonObject | None = client.get_task(task_id, events="none").get("question")
    return question


def _ends(question: JsonObject, event: JsonObject | None) -> bool:
    """Whether `event`, which comes after the question, shows that nobody waits for its answer any more."""
    if event is None:
        return True
    is_about_it: bool = event.get("question_id") == question["question_id"]
    match event.get("type"):
        case "task.finished":
            return True
        case "input.received":
            return is_about_it
        case "input.requested":
            return not is_about_it
        case "task.status":
            return bool(event.get("status") != "waiting")
    return False


def _meant(line: bytes, question: JsonObject) -> str:
    """What is typed, a number standing for its choice."""
    typed = line.decode(errors="replace").strip()
    choices = question.get("choices") or ()
    if typed.isdecimal() and 0 < int(typed) <= len(choices):
        return str(choices[int(typed) - 1])
    return typed
