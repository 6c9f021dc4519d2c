"""The console without a mouse."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.support.scripted_model import Hold, Reply, call, turns
from tests.support.server import PASSWORD

STEPS_MOST = 60  # presses of Tab to anything on a page
SHOWS_FOCUS = """() => {
  if (document.activeElement === document.body) return ""  // it went round by the browser's own controls
  for (let one = document.activeElement, up = 0; one && up < 4; one = one.parentElement, up += 1) {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(one)
    if (outlineStyle !== "none" && parseFloat(outlineWidth) >= 1) return ""
  }
  return document.activeElement.outerHTML.slice(0, 200)
}"""


def tab_to(page: Page, target: Locator, *, key: str = "Tab") -> None:
    """Press the key until the target has the focus; whatever has it on the way shows that it has."""
    expect(target).to_be_visible()
    for _ in range(STEPS_MOST):
        if target.evaluate("it => it === document.activeElement"):
            return
        page.keyboard.press(key)
        assert page.evaluate(SHOWS_FOCUS) == ""
    raise AssertionError(f"{STEPS_MOST} presses of {key} don't reach {target}")


def test_scenario_26_keys_alone_lead_from_the_login_to_the_files(console, tmp_path):
    hold = Hold()
    written = call("write_file", path="notes.txt", content="kept\n")
    shown = call("shell", command="echo shown", id="call_1")
    console.plays(turns(Reply("I begin.", calls=[written, shown]), Reply("never", held=hold)), goal="By keys")
    person = console.register()
    page = console.open("/login")

    expect(page.get_by_role("textbox", name="E-mail")).to_be_focused()
    page.keyboard.type(person.email)
    tab_to(page, page.get_by_role("textbox", name="Password"))
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")

    page.wait_for_url(f"{console.origin}/")
    tab_to(page, page.get_by_role("textbox", name="Goal"))
    page.keyboard.type("By keys alone")
    tab_to(page, page.get_by_role("button", name="Start"))
    page.keyboard.press("Enter")

    page.wait_for_url(re.compile(r"/tasks/\d+$"))
    line = page.locator("[data-call]").get_by_role("button", name="shell")
    tab_to(page, line)
    page.keyboard.press("Enter")
    expect(line).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".terminal")).to_contain_text("shown")

    tab_to(page, page.get_by_role("button", name="Stop", exact=True), key="Shift+Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Stop this task?")
    tab_to(page, dialog.get_by_role("button", name="Stop"))
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator(".task-page header [data-status]")).to_have_text("stopped")
    hold.let_go()

    tab_to(page, page.get_by_role("treeitem", name="notes.txt"))
    page.keyboard.press("Enter")
    drawer = page.locator("[data-preview='notes.txt']")
    expect(drawer).to_contain_text("kept")
    tab_to(page, drawer.get_by_role("link", name="Download"))
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    downloading.value.save_as(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "kept\n"
    page.keyboard.press("Escape")
    expect(page.get_by_role("treeitem", name="notes.txt")).to_be_focused()
