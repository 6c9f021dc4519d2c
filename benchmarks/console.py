"""What the web console takes to show a long task, in Debian's chromium: time until its end is painted, memory, frames.

The long task has ended with 5,000 events, some 550 calls among them; the other side is a task with a dozen. Times are
the page's own, from the beginning of its navigation to the frame after the one in which the task's last card stands in
the document. The browser draws in software here, which a screen would not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.measure import Benchmark, Goal, Side
from beray.client import BeRayClient
from tests.support.browser import DESKTOP, Chromium, chromium_lacks
from tests.support.console import log_in
from tests.support.long_task import lengthen
from tests.support.scripted_model import HELLO, ScriptedModel
from tests.support.server import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROUNDS: Final = 7
EVENTS: Final = 5000
PAINT_MS: Final = 1500  # what a person takes for at once, with room
HEAP_MIB: Final = 150  # so that a dozen tabs fit beside everything else
WHEEL_TURNS: Final = 40
WATCH = """
new MutationObserver((changes, observer) => {
  if (!document.querySelector(".card.finish")) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
FRAMES = """
window.frames_ms = [];
let last = performance.now();
const note = (now) => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(note); };
requestAnimationFrame(note);
"""


class Viewer:
    """Somebody who opens tasks; each opening is a page, in a context that knows nothing, of one browser."""

    def __init__(self, browser: "Browser", server: ServerProcess, token: str) -> None:
        self._browser = browser
        self._server = server
        self._token = token

    @contextmanager
    def opened(self, task_id: int) -> Iterator["Page"]:
        """The task's page, painted."""
        context = self._browser.new_context(**DESKTOP.options())
        log_in(context, self._token)
        try:
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(f"{self._server.base_url}/tasks/{task_id}")
            page.wait_for_function("() => window.painted")
            yield page
        finally:
            context.close()

    def paint(self, task_id: int) -> float:
        """Milliseconds until the task's end is painted."""
        with self.opened(task_id) as page:
            return float(page.evaluate("window.painted"))

    def heap(self, task_id: int) -> float:
        """MiB of objects, once what is garbage is gone."""
        with self.opened(task_id) as page:
            asked = page.context.new_cdp_session(page)
            asked.send("HeapProfiler.collectGarbage")
            return float(asked.send("Runtime.getHeapUsage")["usedSize"]) / (1 << 20)

    def frames(self, task_id: int) -> list[float]:
        """Milliseconds of each frame while the wheel turns upwards through the task."""
        with self.opened(task_id) as page:
            page.locator(".card.finish").hover()
            page.evaluate(FRAMES)
            for _ in range(WHEEL_TURNS):
                page.mouse.wheel(0, -400)
            return [float(spent) for spent in page.evaluate("window.frames_ms.slice(1)")]


@contextmanager
def served(bench: Benchmark) -> Iterator[ServerProcess]:
    """A server whose model writes and runs hello.py."""
    with ScriptedModel(HELLO) as model:
        server = ServerProcess(
            bench.folder / "data", model="openai:scripted", model_base_url=model.base_url, model_api_key="key"
        ).start()
        try:
            yield server
        finally:
            server.stop()


def make_task(server: ServerProcess, token: str) -> int:
    """A task that has ended."""
    with BeRayClient(server.base_url, token=token) as client:
        task_id = client.create_task("Write hello.py")["id"]
        list(client.stream_task_updates(task_id))
        return task_id


def main() -> None:
    """Measure."""
    with Benchmark("console") as bench:
        if lack := chromium_lacks():
            bench.skip("BeRay's console", lack)  # no page is drawn without a browser
            return
        with served(bench) as server, Chromium() as chromium:
            token = server.register("viewer@example.com")
            short, long = make_task(server, token), make_task(server, token)
            lengthen(server, long, events=EVENTS)
            with chromium.lent() as browser:
                viewer = Viewer(browser, server, token)
                viewer.paint(short)  # files are in the server's memory
                _measure(bench, viewer, short=short, long=long)


def _measure(bench: Benchmark, viewer: Viewer, *, short: int, long: int) -> None:
    ours, other = bench.rounds(ROUNDS, lambda: viewer.paint(long), lambda: viewer.paint(short), share=0.7)
    bench.compare(
        "the console, until the end of a task is painted",
        unit="ms",
        ours=Side(f"{EVENTS:,} events", ours),
        other=Side("a dozen events", other),
        goal=Goal("≤", PAINT_MS, of="figure"),
    )
    heap, bare = bench.rounds(1, lambda: viewer.heap(long), lambda: viewer.heap(short))
    bench.compare(
        "the console, heap of a task's page",
        unit="MiB",
        ours=Side(f"{EVENTS:,} events", heap),
        other=Side("a dozen events", bare),
        goal=Goal("≤", HEAP_MIB, of="figure"),
    )
    frames = Side(f"{EVENTS:,} events", viewer.frames(long))
    bench.note("the console, a frame while the wheel turns, p50", unit="ms", ours=frames)
    bench.note("the console, a frame while the wheel turns, p95", unit="ms", ours=frames.at(0.95))


if __name__ == "__main__":
    main()
