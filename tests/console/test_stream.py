"""A task's page while its connection breaks, its server restarts, its tab is hidden, and its task is a long one."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.support.console import Console
from tests.support.long_task import lengthen
from tests.support.scripted_model import Hold, Reply, Script, ScriptedModel, call, turns
from tests.support.waiting import wait_until

FIRST = [f"a{number} " for number in range(40)]
SECOND = [f"b{number} " for number in range(40)]
SEEN = 10  # pieces of text that have come before a connection breaks
TABS = 8
EVENTS = 5000
HEAP_MOST = 150 * 1024 * 1024
RESUMED_WITHIN_MS = 5000
LIST_POLL = re.compile(r"/api/v1/tasks/?\?")  # of the rail, every few seconds
HIDING = """
window.isAway = false
Object.defineProperty(document, "visibilityState", { get: () => (isAway ? "hidden" : "visible") })
Object.defineProperty(document, "hidden", { get: () => isAway })
window.look = (isShown) => { isAway = !isShown; document.dispatchEvent(new Event("visibilitychange")) }
"""  # Playwright keeps every tab visible, as far as the pages can tell


def status_of(page: Page) -> Locator:
    return page.locator(".task-page header [data-status]")


def badge_of(page: Page) -> Locator:
    return page.get_by_role("status").filter(has_text="reconnecting…")


def counting(page: Page) -> list[str]:
    """Where the page navigates to, from now on: what loads it anew shows here."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if request.is_navigation_request() else None)
    return seen


def interrupted(first: Hold, second: Hold) -> Script:
    """Text, a command, more text, another command, and the end: held back amid each text."""
    return turns(
        Reply(FIRST, calls=[call("shell", command="echo one")], held=first, held_after=SEEN),
        Reply(SECOND, calls=[call("shell", command="echo two")], held=second, held_after=SEEN),
        Reply("The end."),
    )


def test_scenario_09_cut_stream_goes_on_with_every_event_once_and_in_order(console):
    first, second = Hold(), Hold()
    console.plays(interrupted(first, second), goal="Interrupted")
    person = console.register()
    client = console.client(person)
    line = console.line()
    task_id = client.create_task("Interrupted by a cut")["id"]
    page = console.logged_in_page(person)
    console.open(f"/tasks/{task_id}")
    expect(page.get_by_text(FIRST[SEEN - 2].strip())).to_be_visible()
    loads = counting(page)

    line.break_off()
    console.expects("net::ERR_")
    expect(badge_of(page)).to_be_visible()
    first.let_go()
    wait_until(lambda: SECOND[SEEN - 2] in str(client.get_task(task_id)["events"]), what="what happens meanwhile")
    line.mend()
    expect(page.get_by_text(SECOND[SEEN - 2].strip())).to_be_visible()
    expect(badge_of(page)).to_have_count(0)

    line.cut()
    second.let_go()
    expect(status_of(page)).to_have_text("completed")
    assert said(page) == "".join([*FIRST, *SECOND]).split()
    assert calls_in(page) == calls_of(client.stream_task_updates(task_id))
    assert loads == []


def said(page: Page) -> list[str]:
    """The model's words, in the order in which the timeline shows them."""
    return re.findall(r"\b[ab]\d+\b", " ".join(page.locator(".task-page .markdown").all_inner_texts()))


def calls_in(page: Page) -> list[str]:
    """The tool calls that the timeline shows, in its order."""
    found: list[str] = page.locator("[data-call]").evaluate_all("calls => calls.map(call => call.dataset.call)")
    return found


def calls_of(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tool calls that a task has made; of the last one its end card tells."""
    return [event["call_id"] for event in events if event["type"] == "tool.requested" and event["name"] != "finish"]


def test_scenario_10_page_goes_on_within_seconds_once_the_server_is_back(chromium, make_server, scripts):
    """However long it was away: the page's own clock is stopped, so that it is the page's seconds that count."""
    first, second = Hold(), Hold()
    scripts.play(interrupted(first, second), goal="Restarted")
    with ScriptedModel(scripts) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="key").start()
        console = Console(chromium, server=server, scripts=scripts)
        try:
            watch_restart(console, first, second)
        finally:
            console.close()


def watch_restart(console: Console, first: Hold, second: Hold) -> None:
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Restarted under way")["id"]
    page = console.logged_in_page(person)
    page.add_init_script("Math.random = () => 0.999")  # its longest waits
    page.clock.install()
    console.open(f"/tasks/{task_id}")
    expect(page.get_by_text(FIRST[SEEN - 2].strip())).to_be_visible()
    loads, failed = counting(page), failures_of(page, f"/tasks/{task_id}/stream")

    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    console.expects("net::ERR_")
    console.server.stop()
    wait_until(lambda: page.clock.run_for(1000) or len(failed) >= 8, what="the page to have tried for long")
    expect(badge_of(page)).to_be_visible()
    console.server.start_again()
    page.clock.run_for(RESUMED_WITHIN_MS)
    expect(badge_of(page)).to_have_count(0)

    page.clock.resume()
    first.let_go()
    second.let_go()
    expect(status_of(page)).to_have_text("completed", timeout=60_000)
    assert calls_in(page) == calls_of(client.stream_task_updates(task_id))
    assert loads == []


def failures_of(page: Page, path: str) -> list[str]:
    """Each request below this path that fails, from now on."""
    seen: list[str] = []
    page.on("requestfailed", lambda request: seen.append(request.url) if path in request.url else None)
    return seen


def test_scenario_11_eighth_tab_loads_and_the_first_catches_up(console):
    """A browser opens six connections to a server, for all tabs together: hidden ones must hold none."""
    hold = Hold()
    console.plays(turns(Reply(FIRST, held=hold, held_after=SEEN)), goal="Tab")
    person = console.register()
    client = console.client(person)
    tasks = [client.create_task(f"Tab {number}")["id"] for number in range(TABS)]
    first_tab = console.logged_in_page(person)
    context = first_tab.context
    context.add_init_script(HIDING)

    tabs: list[Page] = []
    for task_id in tasks:
        for tab in tabs[-1:]:
            tab.evaluate("look(false)")
        tabs.append(first_tab if not tabs else context.new_page())
        tabs[-1].goto(f"{console.origin}/tasks/{task_id}")
        expect(tabs[-1].get_by_text(FIRST[SEEN - 2].strip())).to_be_visible()
        expect(status_of(tabs[-1])).to_have_text("running")
    loads = counting(first_tab)

    hold.let_go()
    list(client.stream_task_updates(tasks[0]))
    expect(status_of(first_tab)).to_have_text("running")  # it is hidden, and asks for nothing
    tabs[-1].evaluate("look(false)")
    first_tab.evaluate("look(true)")
    expect(status_of(first_tab)).to_have_text("completed")
    assert said(first_tab) == "".join(FIRST).split()
    assert loads == []


def test_scenario_12_long_task_shows_its_end_first_and_stays_small(console):
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Write hello.py")["id"]
    list(client.stream_task_updates(task_id))
    lengthen(console.server, task_id, events=EVENTS)
    page = console.logged_in_page(person)
    asked = requests_of(page)
    console.open(f"/tasks/{task_id}")

    log = page.get_by_role("region", name="What the task does")
    expect(log.get_by_role("heading", name="Task completed")).to_be_in_viewport()
    goal = log.locator(".goal")
    assert goal.count() == 0
    shown = len(calls_in(page))
    assert shown < 300
    log.get_by_role("button", name="Show earlier").click()
    wait_until(lambda: len(calls_in(page)) > shown, what="earlier calls")
    log.hover()
    wait_until(lambda: wheel_up(page) or goal.count(), what="the beginning, as somebody scrolls up", seconds=60)
    calls = calls_of(client.stream_task_updates(task_id))
    assert len(calls) > EVENTS / 20
    assert calls_in(page) == calls
    assert heap_of(page) < HEAP_MOST

    expect(page.get_by_role("treeitem", name="hello.py")).to_be_visible()
    asked.clear()
    page.set_viewport_size({"width": 890, "height": 800})
    expect(page.get_by_role("button", name="Menu")).to_be_visible()
    page.set_viewport_size({"width": 910, "height": 800})
    expect(page.get_by_role("button", name="Menu")).to_be_hidden()
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert [url for url in asked if not LIST_POLL.search(url)] == []


def requests_of(page: Page) -> list[str]:
    """What is asked of the API, from now on."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if "/api/v1/" in request.url else None)
    return seen


def wheel_up(page: Page) -> None:
    page.mouse.wheel(0, -100_000)


def heap_of(page: Page) -> float:
    """Bytes of JavaScript's objects, without garbage."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"])
