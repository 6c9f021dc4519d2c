"""The tool that asks the user, and waits.

The question is part of the task while it waits: whoever looks at it sees the question, from any process, and an answer
ends the wait in the transaction that stores it. So does the end of its time; whichever comes first.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field
from sqlalchemy import Connection

from beray.protocol.status import Status
from beray.server.agent.conversation.notes import ANSWERED
from beray.server.agent.run import AgentRun
from beray.server.agent.tools.base import Answer, Opening, Toolbox
from beray.server.agent.wellformed import wellformed
from beray.server.db import messages as message_queries
from beray.server.db import tasks as task_queries
from beray.server.db.messages import MessageRow
from beray.server.events.log import NewEvent
from beray.server.events.wakeups import wait_changed
from beray.server.messages import text

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
LOOK_SECONDS: Final = 5.0  # between looks without being woken: a wake from another process can be lost

Choice = Annotated[str, Field(min_length=1, max_length=200)]

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # C0 without tab and newline, DEL, C1


def build_ask_user(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def ask_user(
        question: Annotated[str, Field(min_length=1, max_length=4000)],
        choices: Annotated[list[Choice] | None, Field(max_length=10)] = None,
    ) -> Answer:
        """Ask the user and wait for the answer; only where you can't go on sensibly without it.

        Args:
            question: One question, in the user's language, with what the user must know to answer it.
            choices: Answers to choose from; the user may answer something else.
        """
        with box.paused():
            return await _Wait(box, box.call_id).answer()

    return ask_user


def open_question(box: Toolbox, call_id: str, args: dict[str, Any]) -> Opening:
    """What comes with the call's start: the task waits, and everybody sees for what."""
    run = box.run
    question = {"question_id": call_id, "question": _shown(args["question"]), "choices": _offered(args.get("choices"))}

    def ask(connection: Connection) -> None:
        task_queries.ask(connection, run.task_id, json.dumps(question), run.clock())

    return Opening((NewEvent("input.requested", question), _status(run, "waiting")), ask)


def _offered(choices: list[str] | None) -> list[str] | None:
    """The choices, each on one line and once: what is shown is sent back as the answer, which may hold no NUL."""
    if choices is None:
        return None
    return list(dict.fromkeys(" ".join(_shown(choice).split()) or REPLACEMENT for choice in choices))


def _shown(words: str) -> str:
    """`words` with control characters replaced: they could paint over the question where it is shown."""
    return _CONTROLS.sub(REPLACEMENT, wellformed(words))


def _status(run: AgentRun, status: Status) -> NewEvent:
    fields = {
        "status": status,
        "model": run.model.name,
        "model_kind": run.model.kind,
        "run": run.run,
        "attempt": run.attempt,
        "stop_requested": False,
    }
    return NewEvent("task.status", fields)


@dataclass(frozen=True)
class _Seen:
    """How the question stands."""

    answer: MessageRow | None
    is_open: bool
    has_message: bool


class _AnsweredMeanwhile(Exception):
    """The question can't be ended any more."""


class _Wait:
    """The wait for one question's answer, begun by this attempt or by one before it."""

    def __init__(self, box: Toolbox, question_id: str) -> None:
        assert box.run.asking is not None, "the tool is offered only where somebody can be asked"
        self._run = box.run
        self._asking = box.run.asking
        self._question_id = question_id
        left_ms = box.call_started_at + self._asking.seconds * 1000 - self._run.clock()
        left_seconds = min(max(left_ms / 1000, 0.0), self._asking.seconds)
        self._ends_at = asyncio.get_running_loop().time() + left_seconds

    async def answer(self) -> Answer:
        """What the model is told: the answer, or that there is none."""
        with self._asking.watching() as changed:
            while True:
                changed.clear()
                seen = await self._run.database.read(self._look)
                if seen.answer is not None:
                    return self._answered(seen.answer)
                left = self._ends_at - asyncio.get_running_loop().time()
                if seen.is_open and left > 0 and not seen.has_message:
                    await wait_changed(changed, min(left, LOOK_SECONDS))
                elif not seen.is_open or await self._close():
                    return self._overtaken() if seen.has_message else self._unanswered()

    def _look(self, connection: Connection) -> _Seen:
        task_id = self._run.task_id
        asked = task_queries.get_question(connection, task_id)
        return _Seen(
            answer=message_queries.find_answer(connection, task_id, self._run.run, self._question_id),
            is_open=asked is not None and json.loads(asked)["question_id"] == self._question_id,
            has_message=message_queries.count_waiting(connection, task_id) > 0,
        )

    async def _close(self) -> bool:
        """Take the question back; False if an answer was faster."""

        def end(connection: Connection) -> None:
            if not task_queries.end_question(connection, self._run.task_id, self._run.clock()):
                raise _AnsweredMeanwhile

        try:
            await self._run.emit(_status(self._run, "running"), also=end)
        except _AnsweredMeanwhile:
            return False
        return True

    def _answered(self, row: MessageRow) -> Answer:
        summary = text("agent_answered", self._run.language)
        return Answer(f"{ANSWERED}\n{row.content}", summary, messages=[row.number])

    def _unanswered(self) -> Answer:
        seconds = self._asking.seconds
        return Answer(
            f"Nobody answered within {seconds} s. Choose sensibly by yourself, and say at the end what you chose.",
            text("agent_unanswered", self._run.language, seconds=seconds),
            ok=False,
        )

    def _overtaken(self) -> Answer:
        return Answer(
            "Not answered: the user had sent a message before the question was asked. It follows; go by it.",
            text("agent_overtaken", self._run.language),
            ok=False,
        )
