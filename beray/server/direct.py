"""Routes that are asked all the time: found by a look at the path, and answered without the framework.

The framework's way to a route (matching, dependencies, exit stacks, its middleware) costs several times what these
routes do themselves. It stays the rule: each of them stands in its router too, which is what /openapi.json tells of,
and whatever does not look plain (an odd id, a parameter to be refused) goes that way and is answered as ever.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from beray.server.errors import Refused

Handler = Callable[[Request, int], Awaitable[Response] | None]
"""Begins to answer a request about the task with this id (0: none is named); None if it is not a plain one."""

Handlers = Mapping[tuple[str, str], Handler]
"""By method and the path below where tasks are, in which `/{task_id}` stands for any id."""

DIGITS_MOST: Final = 18  # of an id that fits


class DirectRoutes:
    """In front of the application: answers what it has a handler for.

    Args:
        app: Gets everything else.
        root: Where tasks are.
        handlers: What is answered here.
        note_refused: Told what a handler refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        root: str,
        handlers: Handlers,
        *,
        note_refused: Callable[[Refused], None] = lambda refused: None,
    ) -> None:
        self._app = app
        self._root = root
        self._handlers = handlers
        self._note_refused = note_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        answering = self._begin(scope, receive, send)
        if answering is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await answering
            await response(scope, receive, send)
        except Refused as refused:  # answered by `Edge`
            self._note_refused(refused)
            raise

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Response] | None:
        if scope["type"] != "http":
            return None
        path: str = scope["path"]
        if not path.startswith(self._root):
            return None
        task_id, below = 0, path[len(self._root) :]
        if below:
            lead, number, tail = _parts(below)
            if lead != "" or not (number.isdigit() and number.isascii() and len(number) <= DIGITS_MOST):
                return None
            task_id, below = int(number), f"/{{task_id}}{tail}"
        handler = self._handlers.get((scope["method"], below))
        return None if handler is None else handler(Request(scope, receive, send), task_id)


def _parts(below: str) -> tuple[str, str, str]:
    """What stands before the first slash, between it and the second, and from that on."""
    lead, _, rest = below.partition("/")
    number, slash, tail = rest.partition("/")
    return lead, number, slash + tail
