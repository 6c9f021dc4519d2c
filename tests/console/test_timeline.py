"""A task's page: what it shows while the task runs and afterwards, and what can be done with the task there."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from beray.client import BeRayClient
from tests.support.browser import CHINESE, DESKTOP, PHONE, Look, accessibility_flaws
from tests.support.console import Console, Person
from tests.support.long_task import lengthen
from tests.support.scripted_model import Hold, Reply, call, turns
from tests.support.waiting import wait_until

COLOURS = r"printf '\033[31mred\033[0m \033[1;32mgreen\033[0m plain\n'"
EVIL = '<script>alert("script")</script> <img src=x onerror=alert("img")> ![p](http://127.0.0.1:9/p.png)'

MARKDOWN = "# Plan\n\n- one\n- `two`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint('x')  # y\n```"
ONE_STEP = {"text": "One", "status": "doing"}
EVERYTHING = turns(
    Reply(MARKDOWN, calls=[call("update_plan", items=[ONE_STEP]), call("shell", command=COLOURS, id="b")]),
    Reply(calls=[call("shell", command="exit 3")]),
    Reply(calls=[call("update_plan", items=[{**ONE_STEP, "status": "done"}])]),
    Reply("**Done** " + "averylongword" * 30),
)


class Watched:
    """A task, its owner's browser at its page, and the owner's access by the API."""

    def __init__(self, console: Console, goal: str, *, look: Look = DESKTOP, person: Person | None = None) -> None:
        self.console = console
        self.person = person or console.register()
        self.client: BeRayClient = console.client(self.person)
        self.task_id: int = self.client.create_task(goal)["id"]
        self.page: Page = console.logged_in_page(self.person, look)

    def open(self, query: str = "") -> Page:
        self.page.goto(f"{self.console.origin}/tasks/{self.task_id}{query}")
        return self.page

    def wait(self) -> list[dict[str, Any]]:
        """The task's events, once it has ended."""
        return list(map(dict, self.client.stream_task_updates(self.task_id)))

    @property
    def log(self) -> Locator:
        return self.page.locator(".scroll")


def status_of(page: Page) -> Locator:
    return page.locator(".task-page header [data-status]")


def open_calls(page: Page) -> None:
    for line in page.locator(".call > .line > button").all():
        line.click()


def seen_by_everybody(page: Page) -> None:
    """Nothing is wider than the window, and nothing shuts anybody out."""
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert accessibility_flaws(page) == []


@pytest.mark.parametrize(("look", "done"), [(DESKTOP, "completed"), (CHINESE, "已完成")], ids=["en", "zh"])
def test_scenario_06_hello_world_runs_before_its_users_eyes(console, look, done):
    task = Watched(console, "Write hello.py that prints hello world, and run it.", look=look)
    page = task.open()

    expect(task.log.get_by_text("Write hello.py that prints")).to_be_visible()
    expect(status_of(page)).to_have_text(done)
    expect(task.log.get_by_text("hello.py prints hello world.")).to_be_visible()
    expect(task.log.locator(".finish a", has_text="hello.py")).to_have_attribute("href", "#file=hello.py")
    seen_by_everybody(page)


def test_scenario_07_tool_line_opens_by_the_keyboard_and_shows_colours(console):
    console.plays(turns(Reply(calls=[call("shell", command=COLOURS)]), Reply("Printed.")), goal="Colours")
    task = Watched(console, "Colours, please")
    page = task.open()
    expect(status_of(page)).to_have_text("completed")
    line = page.locator(".call").get_by_role("button", name="shell")

    expect(line).to_have_attribute("aria-expanded", "false")
    line.focus()
    page.keyboard.press("Enter")

    terminal = page.locator(".terminal")
    expect(terminal.locator("span.fg-red")).to_have_text("red")
    expect(terminal.locator("span.fg-green.bold")).to_have_text("green")
    expect(terminal).to_have_text("red green plain")
    assert "\x1b" not in page.inner_text("body")
    seen_by_everybody(page)
    page.keyboard.press("Space")
    expect(terminal).to_have_count(0)
    page.keyboard.press("e")
    expect(terminal).to_have_count(1)


def test_scenario_08_markup_of_an_agent_is_text(console):
    name = "<img src=x onerror=alert(1)>.txt"
    console.plays(
        turns(
            Reply(EVIL, calls=[call("write_file", path=name, content=EVIL), call("shell", command=f"echo '{EVIL}'")]),
            Reply(f"Done. {EVIL} [bad](javascript:alert(1)) <b onclick=alert(2)>b</b>"),
        ),
        goal="Evil",
    )
    task = Watched(console, f"Evil {EVIL}")
    page = task.open()

    expect(status_of(page)).to_have_text("completed")
    expect(task.log.get_by_text('<script>alert("script")</script>').first).to_be_visible()
    open_calls(page)
    expect(page.locator(".terminal")).to_contain_text("<img src=x onerror=")
    assert page.locator(".task-page script, .task-page img, .task-page [onclick], .task-page [onerror]").count() == 0
    assert page.locator('.task-page a[href^="javascript"]').count() == 0


def test_scenario_13_stop_asks_shows_stopping_at_once_and_then_stopped(console):
    hold = Hold()
    console.plays(turns(Reply(["I have ", "begun."], held=hold, held_after=2)), goal="Stop me")
    task = Watched(console, "Stop me soon")
    page = task.open()
    expect(status_of(page)).to_have_text("running")
    asked: list[Route] = []
    page.route("**/stop", lambda route: asked.append(route))

    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(status_of(page)).to_have_text("stopping")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    assert len(asked) == 1
    asked[0].continue_()

    expect(status_of(page)).to_have_text("stopped")
    assert task.client.get_task(task.task_id, events="none")["status"] == "stopped"
    assert task.client.stop_task(task.task_id)["status"] == "stopped"
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    hold.let_go()


def test_scenario_14_deleted_task_is_gone(console):
    task = Watched(console, "Write hello.py")
    task.wait()
    page = task.open()

    page.get_by_role("button", name="More actions").click()
    page.get_by_role("button", name="Delete task").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete task").click()
    expect(page).to_have_url(re.compile("/tasks$"))
    expect(page.get_by_text(f"Task {task.task_id} has been deleted.")).to_be_visible()

    console.expects("status of 404")
    task.open()
    expect(page.get_by_text("There is no such task")).to_be_visible()
    seen_by_everybody(page)


def test_scenario_15_messages_reach_the_task_and_its_question_is_answered(console):
    hold = Hold()
    console.plays(
        turns(
            Reply("First.", calls=[call("list_files")], held=hold, held_after=3),
            Reply(calls=[call("ask_user", question="Which colour?", choices=["red", "green"])]),
            Reply("Green it is."),
        ),
        goal="Talk",
    )
    task = Watched(console, "Talk to me")
    page = task.open()
    expect(status_of(page)).to_have_text("running")

    page.get_by_label("Message BeRay…").fill("By the way")
    page.keyboard.press("Control+Enter")
    expect(task.log.locator(".bubble", has_text="By the way")).to_be_visible()
    hold.let_go()

    card = page.locator(".composer .question")
    expect(card).to_contain_text("Which colour?")
    expect(status_of(page)).to_have_text("waiting for you")
    seen_by_everybody(page)
    card.get_by_role("button", name="green").click()

    expect(status_of(page)).to_have_text("completed")
    expect(task.log.locator(".asked")).to_contain_text("green")
    expect(task.log.get_by_text("Green it is.")).to_be_visible()


def test_ended_task_is_continued(console):
    console.plays(
        turns(Reply("One."), Reply("Two.")),
        goal="Twice",
    )
    task = Watched(console, "Twice, please")
    page = task.open()
    expect(task.log.get_by_text("One.")).to_be_visible()

    page.get_by_label("What should be done next?").fill("Once more")
    page.get_by_role("button", name="Continue").click()

    expect(task.log.get_by_text("Two.")).to_be_visible()
    expect(task.log.locator(".bubble", has_text="Once more")).to_contain_text("Run 2")
    expect(page.locator("section.finish")).to_have_count(2)


def test_scenario_16_draft_survives_reload_and_navigation(console):
    task = Watched(console, "Write hello.py")
    task.wait()
    page = task.open()
    box = page.get_by_label("What should be done next?")
    box.fill("Not ready yet")

    page.reload()
    expect(box).to_have_value("Not ready yet")
    page.goto(f"{console.origin}/tasks")
    task.open()
    expect(box).to_have_value("Not ready yet")


def test_scenario_22_link_to_an_event_shows_and_marks_it(console):
    task = Watched(console, "Write hello.py")
    task.wait()
    lengthen(console.server, task.task_id, events=1500)
    events = task.client.get_task(task.task_id)["events"]
    early = next(event for event in events[300:] if event["type"] == "tool.started")
    page = task.open(f"?event={early['seq']}")

    marked = page.locator("[data-target]")
    expect(marked).to_have_count(1)
    expect(marked).to_contain_text(early["args"]["command"])
    expect(marked).to_be_in_viewport()
    seen_by_everybody(page)


def test_scenario_31_usage_is_what_the_api_tells(console):
    task = Watched(console, "Write hello.py")
    task.wait()
    page = task.open()
    usage = task.client.get_task(task.task_id, events="none")["usage"]

    worked = task.client.get_usage()["used"]["wall_seconds"]
    total = usage["input_tokens"] + usage["output_tokens"]
    expect(page.locator(".facts [data-usage]")).to_contain_text(f"{total} tokens")
    page.get_by_role("tab", name="Details").click()
    totals = page.locator("[data-usage-totals]")
    for label, name in [("Model requests", "requests"), ("Tool calls", "tool_calls"), ("Input tokens", "input_tokens")]:
        expect(totals.locator("div", has=page.get_by_text(label, exact=True)).locator("dd")).to_have_text(
            str(usage[name])
        )
    seen_by_everybody(page)
    task.console.open("/settings")
    today = page.locator("#usage")
    expect(today.get_by_text(f"{total}", exact=True)).to_be_visible()
    expect(today.get_by_text(f"{worked} s", exact=True)).to_be_visible()


def test_scenario_33_replay_shows_the_events_in_their_order(console):
    task = Watched(console, "Write hello.py")
    events = task.wait()
    page = task.open()
    page.locator(".actions").get_by_role("button", name="Replay").click()
    slider = page.get_by_role("slider", name="Replay")
    expect(slider).to_have_value(str(len(events)))

    seen: list[list[str]] = []
    for count in (1, *(event["seq"] for event in events if event["type"].startswith(("tool.", "text.done")))):
        slider.fill(str(count))
        expect(page.get_by_text(f"Event {count} of {len(events)}")).to_be_visible()
        seen.append(page.locator(".call .name").all_inner_texts())
    assert seen[0] == []
    assert seen == sorted(seen, key=len)
    assert seen[-1][:2] == ["write_file", "shell"]

    slider.fill("0")
    page.get_by_label("Speed").select_option("16×")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(slider).to_have_value(str(len(events)))
    page.get_by_role("button", name="Back to live").click()
    expect(page.get_by_label("What should be done next?")).to_be_visible()


def test_cut_connection_is_told_in_grey_and_mends_itself(console):
    hold = Hold()
    console.plays(turns(Reply(["I have ", "begun. ", "And ", "ended."], held=hold, held_after=3)), goal="Cut")
    line = console.line()
    task = Watched(console, "Cut me off")
    page = task.open()
    expect(task.log.get_by_text("I have begun.")).to_be_visible()

    line.break_off()
    console.expects("net::ERR_")
    expect(page.get_by_text("reconnecting…")).to_be_visible()
    hold.let_go()
    task.wait()
    line.mend()

    expect(task.log.get_by_text("I have begun. And ended.")).to_have_count(1)
    expect(status_of(page)).to_have_text("completed")
    expect(page.get_by_text("reconnecting…")).to_have_count(0)


def test_failed_action_keeps_what_was_written_and_can_be_retried(console):
    task = Watched(console, "Write hello.py")
    task.wait()
    page = task.open()
    page.route("**/messages", lambda route: route.fulfill(status=503, headers={"X-Request-ID": "abc-1"}, body="down"))
    console.expects("status of 503")
    box = page.get_by_label("What should be done next?")
    box.fill("Try this")

    page.get_by_role("button", name="Continue").click()
    toast = page.get_by_role("alert")
    expect(toast).to_contain_text("abc-1")
    expect(box).to_have_value("Try this")

    page.unroute("**/messages")
    toast.get_by_role("button", name="Try again").click()
    expect(task.log.locator(".bubble", has_text="Try this")).to_be_visible()
    expect(box).to_have_value("")


def test_task_page_is_for_everybody_on_a_small_screen(console):
    console.plays(EVERYTHING, goal="Everything")
    task = Watched(console, "Everything there is: " + "a long goal " * 20, look=PHONE)
    task.wait()
    page = task.open()
    expect(status_of(page)).to_have_text("completed")
    expect(page.locator(".hljs-built_in").first).to_be_visible()
    open_calls(page)
    seen_by_everybody(page)
    page.get_by_role("tab", name="Details").first.click()
    seen_by_everybody(page)


def test_tasks_follow_each_other_on_one_page(console):
    """The page component stays, and yet shows the other task."""
    first = Watched(console, "Write hello.py")
    first.wait()
    second = first.client.create_task("Write hello.py, as the second")["id"]
    page = first.open()
    expect(page.locator("section.finish")).to_be_visible()
    page.evaluate(f"history.pushState(null, '', '/tasks/{second}'); dispatchEvent(new PopStateEvent('popstate'))")

    expect(first.log.locator(".bubble")).to_have_text(re.compile("as the second"))
    wait_until(lambda: page.title().startswith("Write hello.py, as the second"), what="the other task's title")
