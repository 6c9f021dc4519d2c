"""The web console as a test sees it: a person, their browser, and the server behind it."""

import itertools
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beray.client import BeRayClient
from tests.support.browser import DESKTOP, WAIT_MS, Chromium, Look, Watch, settle
from tests.support.proxy import Proxy
from tests.support.scripted_model import HELLO, Reply, Script
from tests.support.server import PASSWORD, ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

COOKIE = "beray_session"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    email: str
    token: str = field(repr=False)
    password: str = PASSWORD


class Scripts:
    """What the model of a shared server plays: by what the task's goal begins with, so that tasks of tests that are
    over get nobody else's replies."""

    def __init__(self) -> None:
        self._of: dict[str, Script] = {}

    def __call__(self, request: dict[str, Any], number: int) -> Reply:
        goal = next(_text(message) for message in request["messages"] if message["role"] == "user")
        for beginning, script in self._of.items():
            if goal.startswith(beginning):
                return script(request, number)
        return HELLO(request, number)

    def play(self, script: Script, *, goal: str) -> None:
        """Have tasks whose goal begins so get this script's replies; others get those of HELLO."""
        self._of.pop(goal, None)
        self._of = {goal: script, **self._of}


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def log_in(context: "BrowserContext", token: str) -> None:
    """Have the pages of a browser be those of whom the token belongs to."""
    context.add_cookies(
        [{"name": COOKIE, "value": token, "domain": "127.0.0.1", "path": "/", "httpOnly": True, "sameSite": "Strict"}]
    )


class Line(Proxy):
    """A way to the server that a test can break and mend; use it as a context manager."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._is_broken = threading.Event()
        super().__init__(lambda: [] if self._is_broken.is_set() else [server.bound_port])

    def cut(self) -> None:
        """Cut all connections; new ones go through."""
        self.cut_all()

    def break_off(self) -> None:
        """Cut all connections, and each new one, until `mend`."""
        self._is_broken.set()
        self.cut_all()

    def mend(self) -> None:
        self._is_broken.clear()


class Console:
    """A test's own contexts in the browser, and people at the shared server; `close` checks what the pages did.

    Args:
        chromium: The browser of the process.
        server: Where the console is.
        scripts: Of the server's model.
    """

    def __init__(self, chromium: Chromium, *, server: ServerProcess, scripts: Scripts) -> None:
        self.server = server
        self.origin = server.base_url
        self._scripts = scripts
        self._stack = ExitStack()
        self._browser = self._stack.enter_context(chromium.lent())
        self._watch = Watch({server.base_url})
        self._page: Page | None = None

    @property
    def page(self) -> "Page":
        """The test's page; nobody is logged in on it unless `logged_in_page` made it."""
        return self._page or self.new_page()

    def open(self, path: str) -> "Page":
        """Go to this path of the console on the test's page."""
        page = self.page
        page.goto(f"{self.origin}{path}")
        return page

    def new_page(self, look: Look = DESKTOP) -> "Page":
        """A page of a browser that knows nothing; from now on it is the test's page."""
        self._page = self._new_context(look).new_page()
        return self._page

    def logged_in_page(self, person: Person, look: Look = DESKTOP) -> "Page":
        """A page of a browser in which this person is logged in; from now on it is the test's page."""
        context = self._new_context(look)
        log_in(context, person.token)
        self._page = context.new_page()
        return self._page

    def register(self) -> Person:
        """Somebody new, with an account at the server."""
        email = self.new_address()
        return Person(email, self.server.register(email))

    def new_address(self) -> str:
        """An e-mail address that nobody has an account with."""
        return f"console-{next(_numbers)}-{id(self)}@example.com"

    def client(self, person: Person) -> BeRayClient:
        """The person's access by the API; closed with the test."""
        return self._stack.enter_context(BeRayClient(self.server.base_url, token=person.token))

    def plays(self, script: Script, *, goal: str) -> None:
        """Have the model reply by this script in tasks whose goal begins so."""
        self._scripts.play(script, goal=goal)

    def line(self) -> Line:
        """A way to the server that can be broken; pages opened from now on take it."""
        line = Line(self.server)
        self._stack.enter_context(line)
        self.origin = line.url
        self._watch.origins.add(line.url)
        return line

    def expects(self, *patterns: str) -> None:
        """What the test provokes on a page, as regular expressions: each must be seen, and nothing else may."""
        for pattern in patterns:
            self._watch.expect(pattern)

    @property
    def troubles(self) -> Sequence[str]:
        """What went wrong on the pages so far."""
        self._settle()
        return tuple(self._watch.troubles)

    def close(self) -> None:
        """End the pages, and fail with what went wrong on them."""
        with self._stack:
            self._settle()
            for context in self._browser.contexts:
                context.close()
        self._watch.check()

    def _settle(self) -> None:
        for context in self._browser.contexts:
            settle(context)

    def _new_context(self, look: Look) -> "BrowserContext":
        context = self._browser.new_context(**look.options())
        context.set_default_timeout(WAIT_MS)
        self._watch.over(context)
        return context
