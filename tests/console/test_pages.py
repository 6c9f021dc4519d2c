"""The start page, the list of tasks, the settings and the admin's pages, in a browser."""

import json
import re
from typing import Any, cast

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from tests.support.browser import CHINESE, DARK, DESKTOP, PHONE, Look, accessibility_flaws
from tests.support.console import Console, Person
from tests.support.scripted_model import Hold, Reply, turns
from tests.support.waiting import wait_until

CHINESE_PHONE = Look(CHINESE.language, size=PHONE.size)
CJK = re.compile(r"[\u3400-\u9fff]")
SEEN_WITHIN_SECONDS = 12
ABROAD = re.compile(  # what is the same in both languages
    r"BeRay|API|Webhook|English|OpenAI|Anthropic|DeepSeek|Kimi|Z\.AI|Ollama|GLM|[Hh]ello world|BERAY_\w+|UTC"
    r"|Linux|Chrome|Ctrl\+\w+|https?\S*|\S+@\S+|[\w-]+[:/][\w.-]+|Python requests|[KMG]iB|\bB\b|\bm?s\b|\bmin\b|\bh\b"
)

READ = """() => [...document.querySelectorAll(
    "h1, h2, button, a, label, legend, th, dt, p, span, option, [aria-label], [title]")]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }))
  .flatMap((one) => [
    ...[...one.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data),
    ...["aria-label", "title", "placeholder"].map((name) => one.getAttribute(name)),
  ])
  .map((text) => text?.trim())
  .filter((text) => text)"""


def log_in(console: Console, email: str, password: str) -> str:
    """Another session; its token."""
    body = {"email": email, "password": password}
    answer = requests.post(f"{console.origin}/api/v1/auth/login", json=body, timeout=30)
    answer.raise_for_status()
    return cast(str, answer.json()["access_token"])


def write_goal(page: Page, goal: str) -> None:
    page.get_by_role("textbox", name=re.compile("^(Goal|目标)$")).fill(goal)


def start(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^(Start|开始)$")).click()


def rows(page: Page) -> Any:
    return page.locator("[data-task]")


def seeded(console: Console, person: Person, goals: list[str]) -> list[int]:
    """Tasks that are only there: nobody runs them."""
    client = console.client(person)
    return [client.create_task(goal, hold=True)["id"] for goal in goals]


def in_rules_mode(page: Page) -> None:
    """The server says that it has no model; the rest of what it says is true."""

    def answer(route: Route) -> None:
        info = route.fetch().json()
        models = [{"name": "beray:rules", "model_kind": "rules"}]
        notice = {"zh": "规则模式：不是 AI 模型。", "en": "Rules mode: not an AI model."}
        route.fulfill(
            json={**info, "model_kind": "rules", "model": "beray:rules", "models": models, "model_notice": notice}
        )

    page.route("**/api/v1/info", answer)


@pytest.mark.parametrize("look", [DESKTOP, CHINESE_PHONE], ids=["en", "zh"])
def test_scenario_06_a_goal_begins_a_task_and_its_files_are_there_first(console, look, tmp_path):
    names = tmp_path / "names 名单.txt"
    names.write_text("Ada\n")
    person = console.register()
    page = console.logged_in_page(person, look)
    console.open("/")

    example = page.locator(".examples button").first
    example.click()
    goal = page.get_by_role("textbox", name=re.compile("^(Goal|目标)$"))
    expect(goal).to_have_value(example.get_attribute("title") or "")
    expect(goal).to_be_focused()
    page.reload()
    expect(goal).to_have_value(re.compile(r"\w"))  # the draft is still there

    goal.fill("Write hello.py")
    page.locator("input[type=file]").set_input_files(names)
    expect(page.locator("[data-stage=chosen]")).to_contain_text("names 名单.txt")
    goal.press("Control+Enter")

    page.wait_for_url(re.compile(r"/tasks/\d+$"))
    task_id = int(page.url.rsplit("/", 1)[1])
    client = console.client(person)
    events = list(client.stream_task_updates(task_id))
    assert client.get_task(task_id)["status"] == "completed"
    assert "hello.py" in [event["path"] for event in events if event["type"] == "file.changed"]
    client.download_file(task_id, "names 名单.txt", to=tmp_path / "got")
    assert (tmp_path / "got").read_text() == "Ada\n"
    console.open("/")
    expect(goal).to_have_value("")
    expect(page.locator(f'main a[href="/tasks/{task_id}"]')).to_contain_text("Write hello.py")


def test_files_that_failed_go_again_to_the_same_task(console, tmp_path):
    console.expects("status of 500")
    names = tmp_path / "names.txt"
    names.write_text("Ada\n")
    person = console.register()
    client = console.client(person)
    page = console.logged_in_page(person)
    console.open("/")
    write_goal(page, "Write hello.py")
    page.locator("input[type=file]").set_input_files([names, names])
    page.route("**/files/content*", lambda route: route.fulfill(status=500, json={"detail": "No."}), times=1)
    start(page)
    expect(page.get_by_role("alert").get_by_text("Some files were not uploaded.")).to_be_visible()
    expect(page.locator("[data-stage=failed]")).to_have_count(1)
    assert [task["status"] for task in client.list_tasks()] == ["queued"]

    start(page)
    page.wait_for_url(re.compile(r"/tasks/\d+$"))
    [task] = client.list_tasks()
    assert {"names.txt", "names (2).txt"} <= {node["name"] for node in client.list_files_tree(task["id"])}


def test_options_are_held_to_the_servers_limits_and_go_along(console):
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/")
    expect(page.get_by_text("There is no limit on money")).to_be_visible()

    page.get_by_role("button", name="Options").click()
    requests = page.get_by_role("textbox", name="Model requests")
    requests.fill("1000000")
    expect(page.get_by_text(re.compile("Enter a number from 1 to"))).to_be_visible()
    requests.fill("5")
    page.get_by_role("checkbox", name=re.compile("^ask_user")).uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Options (changed)")).to_be_visible()
    expect(page.get_by_text("makes at most 5 model requests")).to_be_visible()
    write_goal(page, "Write hello.py")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/tasks/")) as asked:
        start(page)

    body = json.loads(asked.value.post_data or "")
    assert body["limits"] == {"requests": 5}
    assert "shell" in body["tools"]
    assert "ask_user" not in body["tools"]
    page.wait_for_url(re.compile(r"/tasks/\d+$"))


def test_scenario_21_the_list_searches_filters_pages_and_follows(console):
    hold, goal = Hold(), "Wait, and be seen to end"
    console.plays(turns(Reply("Done.", held=hold)), goal=goal)
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/tasks")
    expect(page.get_by_role("heading", name="No tasks yet")).to_be_visible()

    page.clock.install()
    seeded(console, person, [f"Held task {number}" for number in range(24)])
    live = console.client(person).create_task(goal)["id"]
    console.open("/tasks")
    expect(rows(page)).to_have_count(20)
    page.get_by_role("button", name="Load more").click()
    expect(rows(page)).to_have_count(25)
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)

    pill = page.locator(f'[data-task="{live}"] [data-status]')
    in_rail = page.locator(f'nav a[href="/tasks/{live}"]')
    expect(pill).to_have_attribute("data-status", re.compile("queued|running"))
    hold.let_go()
    list(console.client(person).stream_task_updates(live))
    for _ in range(SEEN_WITHIN_SECONDS):
        page.clock.run_for(1000)
    expect(pill).to_have_attribute("data-status", "completed")
    expect(in_rail).to_contain_text("completed")

    page.keyboard.press("/")
    page.keyboard.type("task 17")
    page.clock.run_for(500)
    expect(rows(page)).to_have_count(1)
    assert page.url.endswith("/tasks?q=task+17")
    page.reload()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_role("heading", name="No task fits")).to_be_visible()
    page.get_by_role("button", name="Clear the filter").click()
    expect(rows(page)).to_have_count(20)
    page.get_by_role("button", name="active", exact=True).click()
    expect(rows(page)).to_have_count(20)
    expect(page.locator(f'[data-task="{live}"]')).to_have_count(0)


def test_many_tasks_are_stopped_and_deleted_at_once_by_the_keyboard(console):
    person = console.register()
    client = console.client(person)
    first, second, third = seeded(console, person, ["First", "Second", "Third"])
    page = console.logged_in_page(person)
    console.open("/tasks")
    expect(rows(page)).to_have_count(3)

    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").get_by_text("Stopped tasks: 2.")).to_be_visible()
    assert [client.get_task(task_id)["status"] for task_id in (third, second, first)] == [
        "stopped",
        "stopped",
        "queued",
    ]

    page.get_by_role("checkbox", name="Select all tasks listed").check()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No tasks yet")).to_be_visible()
    assert client.list_tasks() == []


@pytest.mark.parametrize("look", [DESKTOP, CHINESE], ids=["en", "zh"])
def test_scenario_24_theme_and_language_stay_and_nothing_flashes(console, look):
    page = console.logged_in_page(console.register(), look)
    page.add_init_script(
        "new MutationObserver((_, all) => { if (!document.body) return; all.disconnect();"
        " window.atFirst = [document.documentElement.dataset.theme, document.documentElement.lang]; })"
        ".observe(document, { childList: true, subtree: true })"
    )
    is_chinese = look is CHINESE
    theme = "深色" if is_chinese else "Dark"
    other = "English" if is_chinese else "中文"
    console.open("/settings")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if is_chinese else "en")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")  # the system's, as nothing was chosen
    page.emulate_media(color_scheme="light")

    page.get_by_role("radio", name=theme).check(force=True)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("radio", name=other).check(force=True)
    for path in ("/settings", "/tasks", "/"):
        console.open(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        assert page.evaluate("atFirst") == ["dark", "en" if is_chinese else "zh-CN"]
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert untranslated(page, language="en" if is_chinese else "zh") == []


def untranslated(page: Page, *, language: str) -> list[str]:
    """What can be read on the page and is not of this language."""
    texts: list[str] = page.evaluate(READ)
    if language == "en":
        return [text for text in texts if CJK.search(text) and text not in ("中文", "切换到中文")]
    rest = [(text, ABROAD.sub("", text)) for text in texts if not CJK.search(text) and text != "Switch to English"]
    return [text for text, left in rest if re.search(r"[A-Za-z]{2,}", left)]


def test_scenario_29_a_hidden_tab_tells_that_a_task_has_ended(console):
    hold, goal = Hold(), "Wait, and end unseen"
    console.plays(turns(Reply("Done.", held=hold)), goal=goal)
    person = console.register()
    task_id = console.client(person).create_task(goal)["id"]
    page = console.logged_in_page(person)
    page.add_init_script(
        "window.told = []; window.isAway = false;"
        "window.Notification = class { static permission = 'granted'; close() {}"
        " constructor(title, options) { told.push([title, options.body, options.tag]); window.last = this; } };"
        "Object.defineProperty(document, 'hidden', { get: () => isAway });"
        "localStorage.setItem('beray.preferences', JSON.stringify({ language: 'en', notifies: true }))"
    )
    page.clock.install()
    console.open("/tasks")
    expect(page.locator(f'[data-task="{task_id}"]')).to_be_visible()

    page.evaluate("isAway = true; document.dispatchEvent(new Event('visibilitychange'))")
    hold.let_go()
    list(console.client(person).stream_task_updates(task_id))
    wait_until(lambda: page.clock.run_for(1000) or page.evaluate("told.length"), what="the notification")

    assert page.evaluate("told") == [[f"Task {task_id} is completed", goal, f"beray-{task_id}"]]
    assert page.title() == "(1) All tasks · BeRay"
    page.evaluate("last.onclick()")
    page.wait_for_url(f"**/tasks/{task_id}")
    page.evaluate("isAway = false; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: not page.title().startswith("("), what="the plain title")


def test_scenario_30_what_fails_is_told_and_what_was_typed_stays(console):
    console.expects("status of 500", "status of 429", "ERR_INTERNET_DISCONNECTED")
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/")
    goal = page.get_by_role("textbox", name="Goal")
    keys: list[str | None] = []
    answers = iter([(500, "It broke.", {}), (429, "Too many.", {"Retry-After": "1"})])

    def refuse(route: Route) -> None:
        keys.append(route.request.header_value("idempotency-key"))
        status, detail, headers = next(answers, (0, "", {}))
        if status == 0:
            route.continue_()
            return
        body = {"detail": detail, "code": "internal_error", "status": status, "title": "", "request_id": "req-7"}
        route.fulfill(
            status=status,
            json=body,
            headers={**headers, "X-Request-ID": "req-7"},
            content_type="application/problem+json",
        )

    page.route("**/api/v1/tasks/", refuse)
    goal.fill("Write hello.py")
    start(page)
    toast = page.get_by_role("alert")
    expect(toast).to_contain_text("It broke.")
    expect(toast).to_contain_text("req-7")
    expect(goal).to_have_value("Write hello.py")
    toast.get_by_role("button", name="Try again").click()
    expect(toast).to_contain_text("Too many.")
    toast.get_by_role("button", name="Close").click()

    page.context.set_offline(True)
    expect(page.get_by_text("You are offline.")).to_be_visible()
    page.unroute("**/api/v1/tasks/")
    start(page)
    expect(toast).to_contain_text("could not be reached")
    expect(goal).to_have_value("Write hello.py")
    page.context.set_offline(False)
    page.route("**/api/v1/tasks/", refuse)
    toast.get_by_role("button", name="Try again").click()

    page.wait_for_url(re.compile(r"/tasks/\d+$"))
    assert len(keys) == 3
    assert len(set(keys)) == 1  # the same task, however often it was sent
    assert [task["goal"] for task in console.client(person).list_tasks()] == ["Write hello.py"]


def test_scenario_32_admins_see_the_service_and_others_nothing(console):
    hold, goal = Hold(), "Wait for an admin"
    console.plays(turns(Reply("Done.", held=hold)), goal=goal)
    boss, user = console.register(), console.register()
    task_id = console.client(user).create_task(goal)["id"]

    page = console.logged_in_page(user)
    console.open("/admin")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    expect(page.get_by_role("link", name="Admin", exact=True)).to_have_count(0)
    assert page.request.get(f"{console.origin}/api/v1/admin/overview").status == 404

    console.server.promote(boss.email)
    page = console.logged_in_page(boss)
    console.open("/admin")
    expect(page.get_by_role("heading", name="Queue")).to_be_visible()
    expect(page.get_by_role("heading", name="Processes")).to_be_visible()
    page.get_by_role("tab", name="Users").click()
    page.get_by_label("Search by address").fill(user.email)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(user.email)
    page.get_by_role("tab", name="Tasks under way").click()
    mine = page.locator("tbody tr").filter(has=page.get_by_role("cell", name=f"#{task_id}", exact=True))
    expect(mine).to_contain_text(user.email)
    expect(mine).not_to_contain_text(goal)
    mine.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(mine).to_have_count(0)
    assert console.client(user).get_task(task_id)["status"] == "stopped"
    page.get_by_role("tab", name="Audit log").click()
    expect(page.get_by_role("cell", name="admin.task.stopped").first).to_be_visible()
    hold.let_go()


def test_rules_mode_is_told_and_left_by_the_guide(console):
    page = console.logged_in_page(console.register(), DARK)
    in_rules_mode(page)
    console.open("/")
    expect(page.get_by_role("heading", name="No model is set yet")).to_be_visible()
    expect(page.get_by_text("Rules mode asks no model, so it costs nothing.")).to_be_visible()
    page.get_by_role("button", name="Not now").click()
    page.reload()
    page.get_by_role("button", name="Rules mode · set a model").click()

    page.get_by_role("tab", name="DeepSeek").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("export BERAY_MODEL=deepseek:")
    page.get_by_role("button", name="I have restarted it").click()
    expect(page.get_by_text("still in rules mode")).to_be_visible()
    page.unroute("**/api/v1/info")
    page.get_by_role("button", name="I have restarted it").click()
    expect(page.get_by_role("heading", name="The model openai:scripted is set")).to_be_visible()
    page.get_by_role("button", name="Test the model").click()
    expect(page.get_by_text("openai:scripted answers")).to_be_visible()


def test_the_palette_and_the_keys_go_everywhere_but_not_while_one_types(console):
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/settings")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_contain_text("Ctrl+K")
    page.keyboard.press("Escape")

    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog").get_by_role("combobox")).to_be_focused()
    page.keyboard.type("dark th")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("Control+k")
    page.keyboard.type("all tasks")
    page.keyboard.press("ArrowDown")  # past the end: the first again
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks")

    page.keyboard.press("n")
    page.wait_for_url(f"{console.origin}/")
    goal = page.get_by_role("textbox", name="Goal")
    expect(goal).to_be_focused()
    page.keyboard.type("n/?")
    expect(goal).to_have_value("n/?")

    console.open("/settings")
    page.get_by_role("switch", name="Single-key shortcuts").click()
    page.keyboard.press("n")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.url.endswith("/settings")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog").get_by_role("combobox")).to_be_visible()


def test_an_api_token_is_shown_once_and_can_be_revoked(console):
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/settings#tokens")
    page.get_by_role("textbox", name="Name").fill("script")
    page.get_by_role("button", name="Create a token").click()
    secret = page.get_by_role("region", name="API tokens").get_by_text(re.compile("^beray_"))
    token = secret.inner_text()
    answer = page.request.get(f"{console.origin}/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["email"] == person.email

    page.reload()
    row = page.locator("#tokens li", has_text="script")
    expect(row).to_be_visible()
    expect(page.get_by_text(token)).to_have_count(0)
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert (
        page.request.get(f"{console.origin}/api/v1/users/me", headers={"Authorization": f"Bearer {token}"}).status
        == 401
    )


def test_sessions_are_told_in_plain_words_and_end(console):
    person = console.register()
    elsewhere = log_in(console, person.email, person.password)
    page = console.logged_in_page(person)
    console.open("/settings#sessions")
    sessions = page.locator("#sessions li")
    expect(sessions).to_have_count(2)
    expect(sessions.filter(has_text="this device")).to_contain_text("127.0.0.1")
    expect(sessions.last).to_contain_text("Python requests")

    page.get_by_role("button", name="End all others").click()
    page.get_by_role("dialog").get_by_role("button", name="End").click()
    expect(sessions).to_have_count(1)
    me = f"{console.origin}/api/v1/users/me"
    assert page.request.get(me, headers={"Authorization": f"Bearer {elsewhere}"}).status == 401


def test_the_password_is_changed_and_the_account_deleted(console):
    console.expects("status of 403")
    person = console.register()
    page = console.logged_in_page(person)
    console.open("/settings#password")
    current, new = page.get_by_label("Current password"), page.get_by_label("New password")
    current.fill("not-the-one")
    new.fill("another-password")
    page.get_by_role("button", name="Change the password").click()
    expect(current).to_be_focused()
    expect(current).to_have_attribute("aria-invalid", "true")
    current.fill(person.password)
    page.get_by_role("button", name="Change the password").click()
    expect(current).to_have_value("")
    log_in(console, person.email, "another-password")

    page.get_by_role("button", name="Delete my account").click()
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name="Delete my account")
    expect(confirm).to_be_disabled()
    dialog.get_by_label(f"Type {person.email} to confirm").fill(person.email)
    dialog.get_by_label("Password").fill("another-password")
    confirm.click()
    page.wait_for_url(re.compile("/login"))


def test_a_webhook_tells_its_secret_once(console):
    page = console.logged_in_page(console.register())
    console.open("/settings#webhook")
    address = page.get_by_role("textbox", name="Address")
    address.fill("https://example.com/hook")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text(re.compile("^whsec_"))).to_be_visible()
    expect(page.get_by_text("No message has been sent yet.")).to_be_visible()
    page.reload()
    expect(address).to_have_value("https://example.com/hook")


def test_the_pages_fit_and_are_for_everybody_in_chinese_too(console):
    """What `test_every_page.py` does not visit: Chinese on a phone, and an admin's lists."""
    person = console.register()
    console.server.promote(person.email)
    seeded(console, person, ["A goal of one word that is " + "very" * 60 + " long", "Second"])
    page = console.logged_in_page(person, CHINESE_PHONE)
    for path in ("/", "/tasks", "/settings", "/admin", "/admin?tab=users", "/admin?tab=tasks", "/admin?tab=audit"):
        console.open(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), path
        assert accessibility_flaws(page) == [], path
