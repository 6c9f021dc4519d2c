"""How a user's tasks are listed page by page, as a flow (`effects.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, cast

from beray.exceptions import ProtocolError
from beray.protocol import calls
from beray.protocol.effects import Conditions, Emit, Flow
from beray.protocol.flows import request, value_in
from beray.protocol.responses import Answer
from beray.protocol.shown import ShownTasks
from beray.protocol.types import Task

PAGE_TASKS: Final = 500  # of 1000 that a page may have (WIRE.md): some hundred KB, goals and results included


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks.

    Attributes:
        limit: At most so many; None is all.
        before: Only those with a lower id.
        status: Only those in one of these states; empty is any.
        search: Only those whose goal holds this text.
    """

    limit: int | None = None
    before: int | None = None
    status: Sequence[str] = ()
    search: str | None = None

    @classmethod
    def of(
        cls, *, limit: int | None, before: int | None, status: str | Sequence[str] | None, search: str | None
    ) -> Self:
        """From what a caller gave: one state, or several.

        Raises:
            ValueError: `limit` is negative.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be 0 or more; got {limit}")
        states = () if status is None else (status,) if isinstance(status, str) else tuple(status)
        return cls(limit=limit, before=before, status=states, search=search)


def all_tasks(wanted: Wanted, conditions: Conditions) -> Flow[list[Task]]:
    """The tasks, newest first."""
    found: list[Task] = ShownTasks()
    cursor = _Cursor(wanted, wanted.limit, wanted.before)
    while not cursor.is_at_end:
        found += yield from _next_page(cursor, conditions)
    return found


def each_page(wanted: Wanted, conditions: Conditions) -> Flow[None]:
    """Emit the tasks, newest first; a page is asked for when the one before has been taken."""
    cursor = _Cursor(wanted, wanted.limit, wanted.before)
    while not cursor.is_at_end:
        yield Emit((yield from _next_page(cursor, conditions)))


@dataclass(slots=True)
class _Cursor:
    """Where the listing is."""

    wanted: Wanted
    left: int | None
    before: int | None
    is_at_end: bool = False


def _next_page(cursor: _Cursor, conditions: Conditions) -> Flow[list[Task]]:
    if cursor.left == 0:
        cursor.is_at_end = True
        return []
    size = PAGE_TASKS if cursor.left is None else min(PAGE_TASKS, cursor.left)
    wanted = cursor.wanted
    call = calls.list_tasks(limit=size, before=cursor.before, status=wanted.status, search=wanted.search)
    answer = yield from request(call, conditions)
    value: object = value_in(answer, call)
    if not isinstance(value, list):
        raise ProtocolError(f"{answer.method} {answer.url} answered with no list. Is base_url a BeRay server's?")
    if not all(isinstance(task, dict) and type(task.get("id")) is int for task in value):
        raise ProtocolError(f"{answer.method} {answer.url} answered with what are no tasks.")
    page = cast(list[Task], value)
    if cursor.left is not None:
        page = page[: cursor.left]  # a server may know no limit
        cursor.left -= len(page)
    cursor.is_at_end = not page or not _has_next(answer)
    if page:
        last = page[-1]["id"]
        if not cursor.is_at_end and cursor.before is not None and last >= cursor.before:
            raise ProtocolError(f"{answer.method} {answer.url} names a next page, which begins where this one did.")
        cursor.before = last
    return page


def _has_next(answer: Answer) -> bool:
    """Whether the server says that there are more (RFC 8288)."""
    return 'rel="next"' in answer.headers.get("Link", "")
