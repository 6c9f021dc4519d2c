"""How a person comes in and goes out: registering, logging in, the session that no script can read."""

import re

import pytest
import requests
from playwright.sync_api import Locator, Page, Response, Route, expect

from tests.support.browser import CHINESE, DESKTOP
from tests.support.console import COOKIE, Person
from tests.support.server import PASSWORD

EMAIL = re.compile("^(E-mail|邮箱)$")
CODE = re.compile("^(Verification code|验证码)$")
SECRET = re.compile("^(Password|密码)$")
COOL_DOWN_SECONDS = 60
ASKED_TO_WAIT_SECONDS = 37
READABLE = """async () => [
    document.cookie,
    JSON.stringify(localStorage),
    JSON.stringify(sessionStorage),
    JSON.stringify(await indexedDB.databases()),
    JSON.stringify(await caches.keys()),
    document.documentElement.outerHTML,
].join("\\n")"""


def box(page: Page, name: re.Pattern[str]) -> Locator:
    return page.get_by_role("textbox", name=name)


def ask_for_code(page: Page, email: str) -> None:
    expect(box(page, EMAIL)).to_be_focused()
    page.keyboard.type(email)
    page.keyboard.press("Enter")
    expect(box(page, CODE)).to_be_focused()


def log_in(page: Page, email: str, password: str = PASSWORD) -> None:
    box(page, EMAIL).fill(email)
    box(page, SECRET).fill(password)
    box(page, SECRET).press("Enter")


def wrong(code: str) -> str:
    """Another of as many digits."""
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}}"


@pytest.mark.parametrize("look", [DESKTOP, CHINESE], ids=["en", "zh"])
def test_scenario_01_registering_by_a_code_leads_to_the_composer(console, look):
    email = console.new_address()
    page = console.new_page(look)
    console.open("/")
    page.wait_for_url("**/login")
    page.get_by_role("link", name=re.compile("^(Create one|创建一个)$")).click()

    ask_for_code(page, email)
    expect(page.get_by_role("status")).to_contain_text(email)
    expect(box(page, CODE)).to_have_attribute("autocomplete", "one-time-code")
    code = console.server.code_for(email)
    page.keyboard.insert_text(f" {code[:3]} {code[3:]} ")  # pasted, as a mail program may have given it
    expect(box(page, SECRET)).to_have_attribute("autocomplete", "new-password")
    box(page, SECRET).fill(PASSWORD)
    box(page, SECRET).press("Enter")

    page.wait_for_url(f"{console.origin}/")
    expect(box(page, re.compile("^(Goal|目标)$"))).to_be_editable()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if look is CHINESE else "en")
    expect(page.get_by_role("navigation")).to_contain_text(email)


def test_scenario_02_wrong_and_expired_codes_are_told_at_the_field(console):
    console.expects("status of 400", "status of 429")
    email = console.new_address()
    page = console.new_page()
    page.clock.install()
    console.open("/register")
    ask_for_code(page, email)
    first = console.server.code_for(email)

    resend = page.get_by_role("button", name=re.compile("^Send again"))
    expect(resend).to_be_disabled()
    expect(resend).to_have_text(re.compile(r"in \d+ s"))
    box(page, SECRET).fill(PASSWORD)
    box(page, CODE).fill(wrong(first))
    box(page, CODE).press("Enter")
    expect_fault(page)
    console.server.expire_codes(email)
    box(page, CODE).fill(first)
    box(page, CODE).press("Enter")
    expect_fault(page)
    expect(box(page, SECRET)).to_have_value(PASSWORD)

    expect(resend).to_be_disabled()
    page.clock.run_for((COOL_DOWN_SECONDS - 10) * 1000)
    expect(resend).to_be_disabled()
    page.clock.run_for(10_000)
    refuse_next_code(page)
    resend.click()
    expect(page.get_by_role("alert")).to_contain_text("Slow down.")
    expect(resend).to_have_text(f"Send again in {ASKED_TO_WAIT_SECONDS} s")
    page.clock.run_for(ASKED_TO_WAIT_SECONDS * 1000)
    resend.click()

    expect(box(page, CODE)).to_have_value("")
    expect(box(page, CODE)).not_to_have_attribute("aria-invalid", "true")
    box(page, CODE).fill(console.server.code_for(email))
    box(page, CODE).press("Enter")
    page.wait_for_url(f"{console.origin}/")


def expect_fault(page: Page) -> None:
    """The field of the code is at fault, says so, and can be mended at once."""
    field = box(page, CODE)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("code"))
    expect(page.get_by_role("alert")).to_have_count(1)
    expect(field).to_be_focused()


def refuse_next_code(page: Page) -> None:
    """The server asks to wait, once."""

    def refuse(route: Route) -> None:
        problem = {"status": 429, "code": "rate_limited", "title": "", "detail": "Slow down.", "request_id": "r"}
        headers = {"Retry-After": str(ASKED_TO_WAIT_SECONDS)}
        route.fulfill(status=429, json=problem, headers=headers, content_type="application/problem+json")

    page.route("**/request-verification-code", refuse, times=1)


def test_scenario_03_wrong_password_tells_nobody_whether_there_is_an_account(console):
    console.expects("status of 401")
    known = console.register()
    page = console.open("/login")
    expect(box(page, EMAIL)).to_be_focused()
    told = []
    for email in (known.email, console.new_address()):
        log_in(page, email, "not_the_password")
        expect(page.get_by_role("alert")).to_have_count(1)
        expect(box(page, SECRET)).to_be_focused()
        told.append((page.get_by_role("alert").inner_text(), page.locator("main").inner_text()))
        page.reload()

    assert told[0] == told[1]
    log_in(page, known.email)
    page.wait_for_url(f"{console.origin}/")


def test_scenario_04_session_outlives_a_reload_and_ends_with_logging_out(console):
    person = console.register()
    page = console.open("/tasks?q=x")
    page.wait_for_url("**/login?next=*")
    log_in(page, person.email)
    page.wait_for_url("**/tasks?q=x")
    page.reload()
    expect(page.get_by_role("navigation")).to_contain_text(person.email)
    cookie = session_cookie(page)
    console.open("/settings")

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.go_back()

    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    expect(page.get_by_text(person.email)).to_have_count(0)
    me = f"{console.origin}/api/v1/users/me"
    assert requests.get(me, cookies={COOKIE: cookie}, timeout=10).status_code == 401
    assert not [one for one in page.context.cookies() if one.get("name") == COOKIE]
    assert requests.get(me, headers=bearer(person), timeout=10).status_code == 200  # another session goes on


def session_cookie(page: Page) -> str:
    [cookie] = [one for one in page.context.cookies() if one.get("name") == COOKIE]
    assert cookie.get("httpOnly")
    assert cookie.get("sameSite") == "Strict"
    return cookie.get("value", "")


def bearer(person: Person) -> dict[str, str]:
    return {"Authorization": f"Bearer {person.token}"}


@pytest.mark.parametrize("way", ["register", "login"])
def test_scenario_05_no_script_can_read_the_session(console, way):
    email = console.new_address() if way == "register" else console.register().email
    page = console.new_page()
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    console.open(f"/{way}")
    if way == "login":
        log_in(page, email)
    else:
        ask_for_code(page, email)
        box(page, CODE).fill(console.server.code_for(email))
        box(page, SECRET).fill(PASSWORD)
        box(page, SECRET).press("Enter")
    expect(box(page, re.compile("^Goal$"))).to_be_visible()

    token = session_cookie(page)
    readable: str = page.evaluate(READABLE)
    told = [answer.text() for answer in answers if "/api/v1/" in answer.url]
    assert len(told) >= 3
    assert not [text for text in (readable, *told) if token in text or "access_token" in text]
    assert PASSWORD not in readable


def test_scenario_23_anothers_task_is_as_unknown_as_none(console):
    console.expects("status of 404")
    owner, other = console.register(), console.register()
    task_id = console.client(owner).create_task("Mine alone", hold=True)["id"]
    console.client(owner).upload_file(task_id, "mine.txt", b"mine")
    page = console.logged_in_page(other)
    told = []
    for path in (f"/tasks/{task_id}#file=mine.txt", "/tasks/999999999#file=mine.txt"):
        console.open(path)
        expect(page.get_by_role("heading", name="There is no such task")).to_be_visible()
        told.append((page.title(), page.locator("body").inner_html()))

    assert told[0] == told[1]
    assert "Mine alone" not in told[0][1]
