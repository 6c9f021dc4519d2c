"""What the tests of the console rest on: nothing that goes wrong on a page goes by unseen."""

import asyncio
import threading

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import PHONE, Look, Watch, accessibility_flaws
from tests.support.console import Console
from tests.support.long_task import lengthen
from tests.support.scripted_model import Hold, Reply, turns
from tests.support.story import assert_true_story
from tests.support.waiting import wait_until

GO_WRONG = {
    "console.error('broken')": "console error: broken",
    "console.warn('odd')": "console warning: odd",
    "setTimeout(() => { throw new Error('boom') })": "page error: boom",
    "fetch('/api/v1/nowhere')": "status of 404 .*/api/v1/nowhere",
    "fetch('http://127.0.0.1:1234/').catch(() => {})": "http://127.0.0.1:1234/",
    "fetch('https://example.com/').catch(() => {})": "https://example.com/",
    "alert('hello')": "dialog: hello",
}


def page_without_policy(console: Console) -> Page:
    """One that may ask other hosts."""
    console.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    return console.open("/health")


def test_a_page_without_faults_passes(console):
    page = console.open("/docs")

    expect(page.get_by_role("heading", level=1)).to_contain_text("BeRay")
    assert console.troubles == ()
    assert accessibility_flaws(page) == []


def test_whatever_goes_wrong_on_a_page_is_seen(console):
    page = page_without_policy(console)
    for script, trouble in GO_WRONG.items():
        console.expects(trouble)
        page.evaluate(f"async () => {{ await {script} }}")
    assert "request to another origin: https://example.com/" in console.troubles

    console.expects("Content Security Policy")
    console.open("/docs").evaluate("document.body.append(new Image()); document.images[0].src = '/x.png'")
    assert "image-alt" in accessibility_flaws(page)[0]


def test_what_was_not_expected_fails_and_so_does_what_was_expected_in_vain():
    watch = Watch({"http://127.0.0.1:1"}, troubles=["console error: a 404", "dialog: b"])
    watch.expect("404")
    with pytest.raises(AssertionError, match=r"\Adialog: b\Z"):
        watch.check()

    watch.expect("^dialog")
    watch.check()

    watch.expect("status of 500")
    with pytest.raises(AssertionError, match=r"in vain: .*500"):
        watch.check()


async def test_coroutines_run_beside_a_browser(chromium):
    assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()


def test_a_person_looks_as_they_do(console):
    page = console.logged_in_page(console.register(), Look("zh-CN", theme="dark", size=PHONE.size))
    told = page.request.get(f"{console.origin}/health")
    page.goto("data:text/html,<title>x</title>")

    assert page.evaluate("[navigator.language, innerWidth, innerHeight]") == ["zh-CN", 390, 844]
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert told.ok
    assert [(cookie["name"], cookie["httpOnly"]) for cookie in page.context.cookies()] == [("beray_session", True)]


def test_a_test_steers_the_model_and_the_line_to_the_server(console):
    hold = Hold()
    console.plays(turns(Reply("never")), goal="Steered")
    console.plays(turns(Reply(["I have", " begun."], held=hold, held_after=2)), goal="Steered")
    person = console.register()
    line, client = console.line(), console.client(person)
    page = page_without_policy(console)

    task_id = client.create_task("Steered by a test")["id"]
    wait_until(lambda: "text.delta" in [event["type"] for event in client.get_task(task_id)["events"]])
    assert client.get_task(task_id)["status"] == "running"
    hold.let_go()
    [*_, last] = client.stream_task_updates(task_id)
    assert (last["status"], last["result"]) == ("completed", "I have begun.")

    line.break_off()
    console.expects("net::ERR_")
    assert page.evaluate("fetch('/health').catch(() => 'cut')") == "cut"
    line.mend()
    assert page.evaluate("fetch('/health').then(answer => answer.status)") == 200


def test_a_finished_task_can_have_many_events(console):
    client = console.client(console.register())
    task_id = client.create_task("Write hello.py")["id"]
    list(client.stream_task_updates(task_id))

    lengthen(console.server, task_id, events=5000)

    events = list(client.stream_task_updates(task_id))
    assert len(events) == client.get_task(task_id, events="none")["last_seq"] >= 5000
    assert_true_story(events)


def test_the_server_comes_back_at_its_address(console):
    client = console.client(console.register())

    console.server.kill()
    console.server.start_again()

    assert console.server.base_url == console.origin
    assert client.get_current_user()["email"].endswith("@example.com")
