"""What holds for every page of the console: anybody can use it, on any screen, and it asks nobody but its server."""

import fcntl
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, expect

from beray.server.console_files import FOLDER, POLICY
from tests.support.browser import DARK, DESKTOP, PHONE, Chromium, Look, accessibility_flaws
from tests.support.console import Console, Person, Scripts
from tests.support.scripted_model import Hold, Reply, call, turns
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

INITIAL_JS_MOST: Final = 90_000  # bytes of what `/login` and `/` load, by gzip -9
STATIC_IMPORT: Final = re.compile(r"""(?:\bfrom|\bimport)\s*["'](\.{1,2}/[^"']+\.js)["']""")
LOOKS: Final = {"light": DESKTOP, "dark": DARK, "phone": Look(theme="dark", size=PHONE.size)}

LONG_WORD: Final = "Donaudampfschifffahrtsgesellschaftskapitaen" * 5
REPORT: Final = f"""# Report

A paragraph with `code`, **weight**, a [link](https://example.com/) and {LONG_WORD}.

| month | region | units | share of the whole | growth since last year | note |
| --- | --- | ---: | ---: | ---: | --- |
| 2026-01 | north | 134 | 31 % | 4 % | as expected by everybody |

1. one
2. two
   - [x] done

> quoted

```python
def hello(name: str) -> str:
    return f"hello {{name}}, this is a line that is too long for a small screen, so that it has to scroll there"
```
"""
PLAN: Final = [
    {"text": "Look at the data", "status": "done"},
    {"text": f"Write the report about {LONG_WORD}", "status": "doing"},
    {"text": "Check it", "status": "todo"},
]
BEGINNING: Final = (
    Reply(["I look at the data first."], calls=[call("update_plan", items=PLAN)]),
    Reply(calls=[call("write_file", path="report.md", content=REPORT)]),
    Reply(calls=[call("shell", command=r"printf '\033[31mred\033[0m\n' && ls " + LONG_WORD)]),
    Reply(calls=[call("write_file", path="table.csv", content="a,b\n" + "1,2\n" * 50)]),
)
ENDING: Final = turns(*BEGINNING, Reply(calls=[call("finish", summary=REPORT, files=["report.md", "table.csv"])]))
QUESTION: Final = f"Which one shall I take, {LONG_WORD}?"
ASKING: Final = turns(
    *BEGINNING,
    Reply(calls=[call("ask_user", question=QUESTION, choices=["The first", LONG_WORD[:90]])]),
    Reply("Thank you."),
)

OUTSIDE: Final = """() => [...document.querySelectorAll("a, button, input, select, textarea, h1, h2, [role=tab]")]
  .filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .filter((one) => {
    const { left, right, bottom, width } = one.getBoundingClientRect()
    return width > 1 && bottom > 0 && (left < -1 || right > innerWidth + 1)
  })
  .filter((one) => {
    for (let it = one.parentElement; it; it = it.parentElement)
      if (/auto|scroll/.test(getComputedStyle(it).overflowX) && it.scrollWidth > it.clientWidth) return false
    return true
  })
  .map((one) => one.outerHTML.slice(0, 200))"""


@dataclass(frozen=True)
class Scene:
    """Somebody with tasks of every kind; they are an admin too."""

    person: Person
    running: int
    waiting: int
    finished: int


@dataclass(frozen=True)
class Stop:
    """A page, and what is done there before it is looked at.

    Attributes:
        path: With names of the scene's tasks in it.
        shows: Selector of what is there once the page is drawn.
        act: Opens what is not open at once.
        is_open: For people who are not logged in.
    """

    path: str
    shows: str
    act: Callable[[Page], object] = lambda page: None
    is_open: bool = False


def unfold(page: Page) -> None:
    """Every tool call shows its arguments and its output."""
    for closed in (".group > button[aria-expanded=false]", "[data-call] button[aria-expanded=false]"):
        page.locator(closed).evaluate_all("buttons => buttons.forEach((button) => button.click())")


def press(name: str) -> Callable[[Page], None]:
    """Press the first button of that name that is there."""
    return lambda page: page.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()


def show(tab: str) -> Callable[[Page], None]:
    """Turn to a tab."""
    return lambda page: page.get_by_role("tab", name=tab).locator("visible=true").first.click()


def replay(page: Page) -> None:
    """Turn to the replay, which a small screen has in the menu."""
    button = page.get_by_role("button", name="Replay", exact=True).locator("visible=true")
    if button.count() == 0:
        page.get_by_role("button", name="More actions").click()
    button.click()
    expect(page.get_by_role("slider")).to_be_visible()


STOPS: Final = {
    "login": Stop("/login", "h1", is_open=True),
    "register": Stop("/register", "h1", is_open=True),
    "reset": Stop("/reset", "h1", is_open=True),
    "home": Stop("/", "main h1"),
    "options of a task": Stop("/", "main h1", press("Options")),
    "palette": Stop("/", "main h1", lambda page: page.keyboard.press("Control+k")),
    "shortcuts": Stop("/settings", "main h1", lambda page: page.keyboard.press("?")),
    "tasks": Stop("/tasks", "[data-task]"),
    "no tasks": Stop("/tasks?q=nothing-like-this", "main h2"),
    "running task": Stop("/tasks/{running}", "[data-call]", unfold),
    "task to be stopped": Stop("/tasks/{running}", "[data-call]", press("Stop")),
    "asking task": Stop("/tasks/{waiting}", ".question"),
    "finished task": Stop("/tasks/{finished}", ".finish", unfold),
    "changes": Stop("/tasks/{finished}", ".finish", show("Changes")),
    "details": Stop("/tasks/{finished}", ".finish", show("Details")),
    "replay": Stop("/tasks/{finished}", ".finish", replay),
    "preview of a report": Stop("/tasks/{finished}#file=report.md", "[data-preview] h1"),
    "preview of a table": Stop("/tasks/{finished}#file=table.csv", "[data-preview] table"),
    "unknown task": Stop("/tasks/999999999", "main h1"),
    "settings": Stop("/settings", "main h1"),
    "admin": Stop("/admin", "main h1"),
    "users": Stop("/admin?tab=users", "table"),
    "not found": Stop("/nowhere", "main h1"),
}


@dataclass(frozen=True)
class Visit:
    """What a stop was like."""

    title: str
    flaws: list[str]
    outside: list[str]
    is_too_wide: bool
    policy: str | None
    troubles: list[str]


class Walks:
    """Visits of every page, made when somebody asks for them first, and shared by all processes of a run.

    Args:
        make: Visits every stop in a look.
        folder: Where the processes find what others have seen.
    """

    def __init__(self, make: Callable[[str], dict[str, Visit]], folder: Path) -> None:
        self._make = make
        self._folder = folder

    def look(self, look: str) -> dict[str, Visit]:
        """Every stop, as somebody sees it who looks so."""
        self._folder.mkdir(exist_ok=True)
        kept = self._folder / f"{look}.json"
        with (self._folder / f"{look}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a walk takes its time, and nobody is to make it twice
            if not kept.exists():
                visits = self._make(look)
                kept.write_text(json.dumps({name: asdict(visit) for name, visit in visits.items()}))
        return {name: Visit(**visit) for name, visit in json.loads(kept.read_text()).items()}


@pytest.fixture(scope="session")
def walks(
    chromium: Chromium,
    console_server: ServerProcess,
    scripts: Scripts,
    tmp_path_factory: pytest.TempPathFactory,
    testrun_uid: str,
) -> Walks:
    """Visits of every page in every look, which the tests share."""

    def make(look: str) -> dict[str, Visit]:
        console = Console(chromium, server=console_server, scripts=scripts)
        try:
            return walk(console, LOOKS[look])
        finally:
            console.close()

    return Walks(make, tmp_path_factory.getbasetemp().parent / f"walks-{testrun_uid}")


def walk(console: Console, look: Look) -> dict[str, Visit]:
    """Visit every stop."""
    console.expects(r"status of 404 .*/tasks/999999999")
    hold = Hold()
    scene = set_scene(console, hold)
    look_at = partial(visit, console, scene=scene)
    outside = console.new_page(look)
    visits = {name: look_at(outside, stop) for name, stop in STOPS.items() if stop.is_open}
    inside = console.logged_in_page(scene.person, look)
    visits |= {name: look_at(inside, stop) for name, stop in STOPS.items() if not stop.is_open}
    hold.let_go()
    return visits


def set_scene(console: Console, hold: Hold) -> Scene:
    console.plays(ENDING, goal="Finish")
    console.plays(ASKING, goal="Ask")
    console.plays(turns(*BEGINNING, Reply(["Still at ", "work."], held=hold, held_after=2)), goal="Run")
    person = console.register()
    console.server.promote(person.email)
    client = console.client(person)
    tasks = {goal: client.create_task(f"{goal} {LONG_WORD}")["id"] for goal in ("Run", "Ask", "Finish")}
    wanted = {"running", "waiting", "completed"}
    wait_until(lambda: {task["status"] for task in client.list_tasks()} == wanted, seconds=60, what=f"tasks {wanted}")
    return Scene(person, running=tasks["Run"], waiting=tasks["Ask"], finished=tasks["Finish"])


def visit(console: Console, page: Page, stop: Stop, *, scene: Scene) -> Visit:
    """Go there, wait until all of it is drawn, and look."""
    before = len(console.troubles)
    path = stop.path.format(running=scene.running, waiting=scene.waiting, finished=scene.finished)
    page.goto("about:blank")  # a page that differs in its fragment alone would stay
    answer = page.goto(f"{console.origin}{path}")
    expect(page.locator(stop.shows).first).to_be_visible()
    stop.act(page)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    return Visit(
        title=page.title(),
        policy=answer and answer.header_value("content-security-policy"),
        is_too_wide=page.evaluate("document.scrollingElement.scrollWidth > innerWidth"),
        outside=page.evaluate(OUTSIDE),
        flaws=accessibility_flaws(page),
        troubles=list(console.troubles[before:]),
    )


@pytest.mark.parametrize("look", LOOKS)
def test_scenario_25_pages_are_for_everybody(walks, look):
    """WCAG 2.2 AA, as far as a program can tell."""
    visits = walks.look(look)

    assert {name: visit.flaws for name, visit in visits.items() if visit.flaws} == {}
    assert not [name for name, visit in visits.items() if not visit.title.endswith("BeRay")]


def test_scenario_27_pages_fit_a_small_screen(walks):
    visits = walks.look("phone")

    assert [name for name, visit in visits.items() if visit.is_too_wide] == []
    assert {name: visit.outside for name, visit in visits.items() if visit.outside} == {}


def test_scenario_27_task_is_begun_and_answered_on_a_small_screen(console):
    console.plays(ASKING, goal="Ask by phone")
    page = console.logged_in_page(console.register(), PHONE)
    console.open("/")
    page.get_by_role("textbox", name="Goal").fill("Ask by phone")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"/tasks/\d+$"))

    page.get_by_role("button", name="The first").click()
    expect(page.locator("[data-status=completed]").first).to_be_visible()
    page.get_by_role("textbox", name="What should be done next?").fill("Ask by phone again")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".finish")).to_have_count(2)
    page.get_by_role("tab", name="Files").locator("visible=true").click()
    expect(page.get_by_text("report.md").locator("visible=true").first).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
def test_scenario_28_pages_do_nothing_wrong_and_ask_only_their_server(walks, look):
    visits = walks.look(look)

    expected = {"unknown task": 1}  # the answer that there is none
    assert {name: len(visit.troubles) for name, visit in visits.items() if visit.troubles} == expected


def test_scenario_34_every_page_has_its_policy(walks):
    """That no page breaches it is checked with its other troubles."""
    assert {visit.policy for visit in walks.look("light").values()} == {POLICY}
    assert "default-src 'self'" in POLICY
    assert "unsafe" not in POLICY


def test_scenario_34_console_begins_with_few_bytes(console):
    loaded: set[str] = set()
    page = console.page
    page.on("response", lambda answer: loaded.add(answer.url.removeprefix(console.origin)))
    console.open("/login")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    person = console.register()
    page = console.logged_in_page(person)
    page.on("response", lambda answer: loaded.add(answer.url.removeprefix(console.origin)))
    console.open("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)

    scripts = {path.lstrip("/") for path in loaded if path.endswith(".js")}
    initial = imported("theme.js", "console.js", "chunks/LoginPage.js", "chunks/HomePage.js")
    assert scripts == initial
    assert sum(len(gzip.compress((FOLDER / path).read_bytes(), 9)) for path in initial) <= INITIAL_JS_MOST


def imported(*paths: str) -> set[str]:
    """These built files, and all that they import before they run."""
    found: set[str] = set()
    left = [FOLDER / path for path in paths]
    while left:
        path = left.pop().resolve()
        name = path.relative_to(FOLDER).as_posix()
        if name not in found:
            found.add(name)
            left += [path.parent / other for other in STATIC_IMPORT.findall(path.read_text(encoding="utf-8"))]
    return found
