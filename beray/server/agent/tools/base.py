"""What every tool is given, and what it gives back."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from beray.server.agent.background import BackgroundProcesses
from beray.server.agent.progress import Progress
from beray.server.agent.run import AgentRun
from beray.server.agent.tools.pictures import Picture, why_unseen
from beray.server.events.log import NewEvent
from beray.server.work_dirs.listing import FileChange
from beray.tools import ToolError as ToolError


@dataclass(frozen=True)
class Answer:
    """What a call came to.

    Attributes:
        text: What the model is told.
        summary: One line for people, in the task's language.
        ok: Whether it did what was asked; a command that ran and failed did not.
        exit_code: Of a command; None for other tools.
        truncated: People were shown less than the whole output.
        changes: Files the tool wrote itself.
        events: Further events that belong to the call's end.
        pictures: What the model is shown beside the text.
        messages: Numbers of the user's messages that the text holds; they count as delivered with the call's end.
    """

    text: str
    summary: str
    ok: bool = True
    exit_code: int | None = None
    truncated: bool = False
    changes: Sequence[FileChange] = ()
    events: Sequence[NewEvent] = ()
    pictures: Sequence[Picture] = ()
    messages: Sequence[int] = ()


@dataclass(frozen=True)
class Opening:
    """What belongs to a call's start, beside `tool.started`."""

    events: Sequence[NewEvent] = ()
    also: Callable[[Connection], None] = lambda connection: None


@dataclass
class Toolbox:
    """What tools work with; calls run one after the other.

    Attributes:
        call_id: The call that runs.
        call_started_at: When it began, perhaps in an attempt before this one (ms since the epoch).
        has_failure: An earlier call of the same answer failed.
        ends_at: When the run's wall time is up, by the monotonic clock.
        sees_images: The model that works now takes pictures.
        picture_bytes: What the pictures in the conversation hold.
        paused: A block in which the run's wall time stands still.
        background: What the run's commands have left running.
    """

    run: AgentRun
    progress: Progress
    call_id: str = ""
    call_started_at: int = 0
    has_failure: bool = False
    ends_at: float = 0.0
    sees_images: bool = False
    picture_bytes: int = 0
    paused: Callable[[], AbstractContextManager[None]] = nullcontext
    background: BackgroundProcesses = field(init=False)

    def __post_init__(self) -> None:
        self.background = BackgroundProcesses(self.progress)

    def visible(self, answer: Answer) -> Answer:
        """The answer with what the model can be shown; of the other pictures it says why they are left out."""
        shown, told = [], [answer.text]
        for picture in answer.pictures:
            why = why_unseen(picture, sees=self.sees_images, held_bytes=self.picture_bytes)
            if why:
                told.append(why)
            else:
                shown.append(picture)
                self.picture_bytes += len(picture.content)
        return replace(answer, text="\n".join(told), pictures=shown)

    def begin_turn(self, seconds_left: float | None) -> None:
        """A further answer's calls will come; None: the run has all the time."""
        self.has_failure = False
        self.ends_at = math.inf if seconds_left is None else time.monotonic() + seconds_left


def title_of(name: str, args: dict[str, Any]) -> str:
    """One line for people that says what a call does, such as `write_file hello.py`."""
    shown = [str(len(detail)) if isinstance(detail, list) else str(detail) for detail in _details(name, args)]
    return f"{name} {first_line(' '.join(shown))}".strip()


def _details(name: str, args: dict[str, Any]) -> list[Any]:
    """What of its arguments tells a call from others; of a tool that is not built in the first text."""
    if name in _DETAILS:
        return [args.get(detail, "") for detail in _DETAILS[name]]
    return [value for value in args.values() if isinstance(value, str)][:1]


def first_line(text: str) -> str:
    """The beginning of a text, in one line."""
    lines = text.strip().splitlines()
    first = lines[0] if lines else ""
    if len(first) > MOST_TITLE_CHARACTERS or len(lines) > 1:
        first = first[:MOST_TITLE_CHARACTERS] + " …"
    return first


MOST_TITLE_CHARACTERS = 100

_DETAILS = {
    "shell": ("command",),
    "background": ("action", "id"),
    "python": ("code",),
    "read_file": ("path",),
    "write_file": ("path",),
    "edit_file": ("path",),
    "list_files": ("path",),
    "search_files": ("pattern",),
    "update_plan": ("items",),
    "finish": (),
    "ask_user": ("question",),
}
