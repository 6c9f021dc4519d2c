"""What the routes answer that are asked all the time, and which requests for them are plain (see `direct.py`)."""

import hashlib
import re
from collections.abc import Awaitable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from beray.server.auth.service import Accounts
from beray.server.db.tables import ID_MOST
from beray.server.db.tasks import OWN_TASK, TaskFilter
from beray.server.direct import Handlers
from beray.server.errors import Refused
from beray.server.json_response import JsonResponse
from beray.server.messages import text
from beray.server.next_link import next_link
from beray.server.tasks.service import Tasks, found, looked_up
from beray.server.tasks.stream import Hub, Streams, TaskStream, Watcher
from beray.server.tasks.view import task_body, task_body_with_events

LIST_MOST: Final = 1000  # tasks of one page at most; without `limit` all are listed (WIRE.md)
TAIL: Final = re.compile(r"tail:([0-9]{1,9})")
EVENT_ID: Final = re.compile(r"[0-9]{1,18}")
EVENTS: Final = {b"": "all", b"events=all": "all", b"events=none": "none"}  # most queries, read already
PLAIN_NUMBER: Final = re.compile(r"[0-9]{1,9}")
PAGE_PARAMETERS: Final = frozenset({"limit", "before"})


class TaskAnswers:
    """Answers to GET of tasks, a task and its stream."""

    def __init__(self, tasks: Tasks, accounts: Accounts, hub: Hub, streams: Streams) -> None:
        self._tasks = tasks
        self._accounts = accounts
        self._hub = hub
        self._streams = streams

    async def task(self, request: Request, task_id: int, events: str) -> Response:
        """A task with its events: `all`, `none`, or the last N by `tail:N`."""
        _, row = await self._accounts.authenticate_owner(request, OWN_TASK, task_id=looked_up(task_id))
        tail = _wanted_tail(events)
        task = found(row, task_id)
        if tail == 0:
            return JsonResponse(task_body(task))
        frames = await self._tasks.read_events(task, tail=tail)
        return JsonResponse(task_body_with_events(task, frames))

    async def list(self, request: Request, wanted: TaskFilter) -> Response:
        """The user's tasks, newest first; those of a page if there is a limit."""
        user = await self._accounts.authenticate(request)
        limit = wanted.limit
        rows = await self._tasks.list(user, wanted.with_one_more())
        has_more = limit is not None and len(rows) > limit
        shown = rows[:limit] if has_more else rows
        body = b"[" + b",".join(map(task_body, shown)) + b"]"
        headers = {"link": next_link(request, shown[-1].id)} if has_more else {}
        return _with_etag(request, body, headers)

    async def stream(self, request: Request, task_id: int, after: int | None) -> Response:
        """The task's events as `text/event-stream`: those after `Last-Event-ID` (or `after`), then live."""
        watch, row = await self._accounts.watch_login(request, OWN_TASK, task_id=looked_up(task_id))
        found(row, task_id)
        watcher = Watcher(watch.user.id, task_id, _stream_start(request, after), watch)
        return _AsgiAnswer(TaskStream(self._hub, self._streams, watcher))

    @property
    def direct(self) -> Handlers:
        """By which they are found without the framework."""
        return {
            ("GET", ""): self.plain_list,
            ("GET", "/{task_id}"): self.plain_task,
            ("GET", "/{task_id}/stream"): self.plain_stream,
        }

    def plain_task(self, request: Request, task_id: int) -> Awaitable[Response]:
        """Begin to answer GET /tasks/{task_id}, which takes any text for `events`."""
        events = EVENTS.get(request.scope["query_string"])
        return self.task(request, task_id, request.query_params.get("events", "all") if events is None else events)

    def plain_list(self, request: Request, task_id: int) -> Awaitable[Response] | None:
        """Begin to answer GET /tasks that asks for all of them, or for a page."""
        given = request.query_params.multi_items()
        if not all(name in PAGE_PARAMETERS and PLAIN_NUMBER.fullmatch(value) for name, value in given):
            return None
        numbers = {name: int(value) for name, value in given}
        limit, before = numbers.get("limit"), numbers.get("before")
        if len(numbers) < len(given) or before == 0 or (limit is not None and not 1 <= limit <= LIST_MOST):
            return None
        return self.list(request, TaskFilter(limit=limit, before=before))

    def plain_stream(self, request: Request, task_id: int) -> Awaitable[Response] | None:
        """Begin to answer GET /tasks/{task_id}/stream."""
        after = request.query_params.get("after") if request.scope["query_string"] else None
        if after is None:
            return self.stream(request, task_id, None)
        return self.stream(request, task_id, int(after)) if PLAIN_NUMBER.fullmatch(after) else None


class _AsgiAnswer(Response):
    """Lets a route answer with an ASGI app of its own."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _wanted_tail(events: str) -> int | None:
    if events == "all":
        return None
    if events == "none":
        return 0
    match = TAIL.fullmatch(events)
    if match is None:
        reason = f"events: {text('invalid.events')}"
        item = {"loc": ["query", "events"], "msg": reason, "type": "events"}
        raise Refused("validation_error", reason=reason, errors=[item])  # type: ignore[list-item]  # an ErrorItem
    return int(match[1])


def _stream_start(request: Request, after: int | None) -> int:
    """Where to begin: `Last-Event-ID` wins (a reconnecting client repeats its first URL); a strange one is ignored."""
    last = request.headers.get("last-event-id", "")
    if EVENT_ID.fullmatch(last):
        return int(last)
    return min(after or 0, ID_MOST)


def _with_etag(request: Request, body: bytes, headers: dict[str, str]) -> Response:
    etag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**headers, "etag": etag, "cache-control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return JsonResponse(body, headers=headers)
