"""Debian's chromium, driven by Playwright: one browser for a process of tests, and what it may not do unseen."""

import asyncio
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # taken where it is used: only those who have a browser need the package
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request

# The same browser without windows takes a third less of the processor's time.
PROGRAMS = ("chromium-headless-shell", "chromium")
WAIT_MS = 15_000  # for what a page should show; a crowded machine draws late
WCAG_2_2_AA = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
NOTHING_ELSE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # no name is looked up, whatever a page asks for


def chromium_lacks() -> str | None:
    """Why pages can't be tested here; None when they can."""
    if importlib.util.find_spec("playwright") is None:
        return "the package playwright is not installed (uv sync)"
    if _program() is None:
        return "chromium is not installed (apt install chromium-headless-shell)"
    return None


def _program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass(frozen=True)
class Look:
    """How a person looks at a page.

    Attributes:
        language: What their browser asks for.
        theme: What their system is set to.
        size: Of the window, in CSS pixels.
    """

    language: str = "en-US"
    theme: Literal["light", "dark"] = "light"
    size: tuple[int, int] = (1280, 800)

    def options(self) -> dict[str, Any]:
        """For a new context."""
        width, height = self.size
        return {
            "locale": self.language,
            "color_scheme": self.theme,
            "viewport": {"width": width, "height": height},
            "reduced_motion": "reduce",
        }


DESKTOP = Look()
CHINESE = Look(language="zh-CN")
DARK = Look(theme="dark")
PHONE = Look(size=(390, 844))


class Chromium:
    """The browser. Use it as a context manager, and within it `lent` around everything a test does with a page.

    Playwright's synchronous interface runs an event loop that it leaves marked as running, so that no coroutine could
    run in this thread any more: between tests that have pages the mark is taken off.
    """

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._browser: Browser | None = None

    def __enter__(self) -> "Chromium":
        from playwright.sync_api import expect

        arguments = [f"--host-resolver-rules={NOTHING_ELSE}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # chromium refuses to confine what root runs
        expect.set_options(timeout=WAIT_MS)
        started = self._playwright.start()
        self._browser = started.chromium.launch(executable_path=_program(), args=arguments)
        self._loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._browser is not None
        asyncio._set_running_loop(self._loop)
        try:
            self._browser.close()
        finally:
            self._playwright.__exit__()

    @contextmanager
    def lent(self) -> Iterator["Browser"]:
        """The browser, for as long as a test lasts."""
        assert self._browser is not None
        asyncio._set_running_loop(self._loop)
        try:
            yield self._browser
        finally:
            asyncio._set_running_loop(None)


@dataclass
class Watch:
    """Notes what goes wrong in a context's pages, and what is asked of another origin.

    A breach of the content security policy is a console's error too, and so is each answer from 400 on.

    Attributes:
        troubles: What was seen, one line each.
    """

    origins: set[str]
    troubles: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    def over(self, context: "BrowserContext") -> None:
        """Begin, before the context has pages."""
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.troubles.append(f"page error: {error.error}"))
        context.on("request", self._see)
        context.on("page", lambda page: page.on("crash", lambda crashed: self.troubles.append("page crashed")))
        context.on("dialog", self._close)

    def expect(self, pattern: str) -> None:
        """The test provokes troubles of this kind, at least one."""
        self._expected.append(pattern)

    def check(self) -> None:
        """Fail with what was not expected, and with what was expected in vain."""
        unexpected = [line for line in self.troubles if not any(re.search(known, line) for known in self._expected)]
        assert not unexpected, "\n".join(unexpected)
        vain = [known for known in self._expected if not any(re.search(known, line) for line in self.troubles)]
        assert not vain, f"expected in vain: {vain}"

    def _hear(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console {message.type}: {message.text} ({message.location['url']})")

    def _see(self, request: "Request") -> None:
        if not request.url.startswith(("data:", "blob:", *(f"{origin}/" for origin in self.origins))):
            self.troubles.append(f"request to another origin: {request.url}")

    def _close(self, dialog: "Dialog") -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def settle(context: "BrowserContext") -> None:
    """Have heard all that the pages have told so far: what they tell comes in order, an answer last."""
    for page in context.pages:
        page.wait_for_function("() => true", timeout=WAIT_MS)


def accessibility_flaws(page: "Page") -> list[str]:
    """What axe-core finds on the page against WCAG 2.2 AA: rule, what it wants, where."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    options = {"runOnly": {"type": "tag", "values": WCAG_2_2_AA}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['id']}: {rule['help']}: {' '.join(map(str, node['target']))}\n{node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
