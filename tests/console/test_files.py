"""The files of a task in the console: dropped and uploaded, listed, shown, compared, taken away."""

import io
import re
import struct
import zipfile
import zlib
from typing import Any

from playwright.sync_api import Locator, Page, expect

from beray.client import BeRayClient
from tests.support.browser import CHINESE, DESKTOP, Look, accessibility_flaws
from tests.support.console import Console
from tests.support.scripted_model import Hold, Reply, Script, call, turns

SLOW_BYTES = 60_000  # a second: slow enough to see that an upload goes on
MEGABYTE = 1 << 20
TRAP = '<img src=x onerror=alert(1)>"><b>.txt'
PAGE = """<!doctype html><p id="told"></p><script>
const told = []
for (const look of [() => document.cookie, () => parent.document.title, () => localStorage.length]) {
  try { told.push(look()) } catch (error) { told.push("kept") }
}
fetch("/api/v1/users/me").catch(() => "kept").then((answer) => {
  document.getElementById("told").textContent = [...told, answer].join(" ")
})
</script>"""

DROP = """files => {
    const transfer = new DataTransfer()
    for (const { name, size, claimed } of files) {
        const file = new File(["x".repeat(size)], name)
        if (claimed) Object.defineProperty(file, "size", { value: claimed })
        transfer.items.add(file)
    }
    return transfer
}"""


def held_task(console: Console, **files: bytes) -> tuple[BeRayClient, int, Page]:
    """A task that has not begun, with files of these names, and its owner's page."""
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Keep files", hold=True)["id"]
    for path, content in files.items():
        client.upload_file(task_id, path, content)
    return client, task_id, console.logged_in_page(person)


def file_row(page: Page, path: str) -> Locator:
    return page.locator(f'[role=treeitem][data-path="{path}"]')


def shown_file(console: Console, task_id: int, path: str) -> Locator:
    """The file in its drawer."""
    page = console.open(f"/tasks/{task_id}#file={path}")
    drawer = page.locator(f'[data-preview="{path}"]')
    expect(drawer).to_be_visible()
    return drawer


def drop(page: Page, *files: dict[str, Any]) -> None:
    """Drop files in the middle of the page, none of whose parts asks for them."""
    transfer = page.evaluate_handle(DROP, list(files))
    page.dispatch_event("[role=log], main", "dragover", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop to upload")).to_be_visible()
    page.dispatch_event("[role=log], main", "drop", {"dataTransfer": transfer})


def slow_down(page: Page, upload_bytes: int) -> None:
    line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": upload_bytes}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", line)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + b"\x20\x80\xa0" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def test_scenario_08_names_of_files_are_text(console: Console) -> None:
    """Whatever a file is called, in the tree, in the changes and in its drawer: nothing of it is run or asked for."""
    console.plays(turns(Reply(calls=[call("write_file", path=TRAP, content="a trap\n")]), Reply("Done.")), goal="Trap")
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Trap me")["id"]
    list(client.stream_task_updates(task_id))
    page = console.logged_in_page(person)
    console.open(f"/tasks/{task_id}")

    row = page.get_by_role("tree").get_by_text(TRAP)
    expect(row).to_be_visible()
    page.get_by_role("tab", name="Changes").click()
    page.locator("[data-change]").get_by_role("button", name=TRAP).click()
    expect(page.get_by_role("region", name="Changes of")).to_contain_text("a trap")
    page.get_by_role("tab", name="Files").click()
    row.click()
    expect(page.get_by_role("dialog", name=TRAP)).to_contain_text("a trap")


def test_scenario_17_files_are_dropped_anywhere(console: Console) -> None:
    """Each shows how far it is; names of all kinds work; what is refused says why; nothing is replaced unasked."""
    client, task_id, page = held_task(console, **{"there.txt": b"old"})
    console.open(f"/tasks/{task_id}")
    expect(file_row(page, "there.txt")).to_be_visible()
    slow_down(page, SLOW_BYTES)

    drop(
        page, {"name": "报告 1.txt", "size": 80_000}, {"name": "b c.txt", "size": 70_000}, {"name": "d.txt", "size": 1}
    )

    for name in ("报告 1.txt", "b c.txt"):
        expect(page.get_by_role("progressbar", name=name)).to_be_visible()
    expect(page.locator("[data-upload][data-stage=done]")).to_have_count(3)
    for name, size in (("报告 1.txt", 80_000), ("b c.txt", 70_000), ("d.txt", 1)):
        expect(file_row(page, name)).to_be_visible()
        assert client.get_file_content(task_id, name).content == b"x" * size

    slow_down(page, -1)
    huge = {"name": "huge.bin", "size": 1, "claimed": 10**15}
    drop(page, {"name": "..", "size": 1}, huge, {"name": "there.txt", "size": 5})

    expect(page.locator('[data-upload=".."]')).to_contain_text("has a .. in it")
    expect(page.locator('[data-upload="huge.bin"]')).to_contain_text("at most")
    asked = page.locator('[data-upload="there.txt"]')
    expect(asked).to_contain_text("Replace it?")
    assert client.get_file_content(task_id, "there.txt").content == b"old"
    asked.get_by_role("button", name="Replace").click()
    expect(asked).to_have_attribute("data-stage", "done")
    assert client.get_file_content(task_id, "there.txt").content == b"xxxxx"
    console.expects(r"status of 422 .*path=\.\.")


def test_scenario_17_a_broken_upload_is_tried_again(console: Console) -> None:
    client, task_id, page = held_task(console)
    console.open(f"/tasks/{task_id}")
    expect(page.get_by_text("No files yet")).to_be_visible()
    page.route("**/files/content?*", lambda route: route.abort("connectionreset"))

    page.locator("[data-picker=files]").set_input_files({"name": "a.txt", "mimeType": "", "buffer": b"whole"})

    row = page.locator('[data-upload="a.txt"]')
    expect(row).to_contain_text("could not be reached")
    page.unroute("**/files/content?*")
    row.get_by_role("button", name="Upload a.txt again").click()
    expect(file_row(page, "a.txt")).to_be_visible()
    assert client.get_file_content(task_id, "a.txt").content == b"whole"
    console.expects("ERR_CONNECTION_RESET")


def test_scenario_18_files_are_shown_as_what_they_are(console: Console) -> None:
    table = 'id,"a ""name""",数量\n' + "".join(f'{row},"n, {row}",{row}.5\n' for row in range(1, 10_051))
    _, task_id, page = held_task(
        console,
        **{
            "app.py": b"def main():\n    return '<b>'\n",
            "README.md": b"# Title\n\n- one\n- **two**\n",
            "data/table.csv": table.encode(),
            "gbk.txt": "中文文件".encode("gbk"),
            "image.png": png(40, 30),
            "program": b"\x7fELF\0\0\1" + bytes(300),
            "report.pdf": b"%PDF-1.4\n",
            "tidy.json": b'{"a":[1,12345678901234567890]}',
        },
    )

    drawer = shown_file(console, task_id, "app.py")
    expect(drawer.locator(".hljs-keyword").first).to_have_text("def")
    expect(drawer.locator(".line")).to_have_text(["def main():", "    return '<b>'"])
    assert accessibility_flaws(page) == []
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page).not_to_have_url(re.compile("#file="))  # its closing is told a moment after it is hidden

    drawer = shown_file(console, task_id, "README.md")
    expect(drawer.get_by_role("heading", name="Title")).to_be_visible()
    drawer.get_by_role("button", name="Source").click()
    expect(drawer.locator(".line").first).to_have_text("# Title")

    drawer = shown_file(console, task_id, "data/table.csv")
    expect(drawer.get_by_role("columnheader")).to_have_text(["Row", "id", 'a "name"', "数量"])
    expect(drawer.get_by_role("table")).to_have_attribute("aria-rowcount", "10001")
    assert drawer.get_by_role("row").count() < 100
    drawer.get_by_role("region").evaluate("view => view.scrollTo(0, view.scrollHeight)")
    expect(drawer.get_by_role("rowheader", name="10,000")).to_be_visible()
    expect(drawer).to_contain_text("Only the first 10,000 rows are shown")

    drawer = shown_file(console, task_id, "image.png")
    expect(drawer).to_contain_text("40 × 30")

    page.route("**/content?path=report.pdf&*", lambda route: route.fulfill(body="the browser's viewer"))
    frame = shown_file(console, task_id, "report.pdf").locator("iframe")
    told = page.request.get(console.origin + (frame.get_attribute("src") or ""))
    assert (told.headers["content-type"], told.body()) == ("application/pdf", b"%PDF-1.4\n")
    assert told.headers["content-disposition"].startswith("inline")

    drawer = shown_file(console, task_id, "program")
    expect(drawer).to_contain_text("7f 45 4c 46 00 00 01")
    expect(drawer.get_by_role("link", name="Download").last).to_have_attribute("download", "program")

    drawer = shown_file(console, task_id, "gbk.txt")
    expect(drawer.locator(".line")).to_have_text("中文文件")
    expect(drawer.get_by_role("combobox", name="not UTF-8")).to_have_value("gb18030")

    drawer = shown_file(console, task_id, "tidy.json")
    expect(drawer.locator(".line").nth(3)).to_have_text("    12345678901234567890")
    drawer.get_by_role("button", name="Previous file").click()
    expect(page.get_by_role("dialog", name="report.pdf")).to_be_visible()


def test_scenario_18_a_large_text_is_shown_in_parts(console: Console) -> None:
    line = b"a line of text".ljust(127) + b"\n"
    _, task_id, page = held_task(console, **{"large.log": line * (50 * MEGABYTE // len(line))})

    drawer = shown_file(console, task_id, "large.log")

    expect(drawer).to_contain_text("The first 1 MiB of 50 MiB")
    first = drawer.locator(".line").count()
    assert first == MEGABYTE // len(line)
    drawer.get_by_role("button", name="Show more").click()
    expect(drawer).to_contain_text("The first 2 MiB of 50 MiB")
    assert drawer.locator(".line").count() > first
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_scenario_19_downloads_are_equal_byte_for_byte(console: Console) -> None:
    files = {"a 文件.bin": bytes(range(256)) * 300, "folder/b.txt": b"b\r\n", "folder/deep/c.txt": b"", "d.txt": b"d"}
    _, task_id, page = held_task(console, **files)
    console.open(f"/tasks/{task_id}")

    def taken(link: Locator) -> tuple[str, bytes]:
        with page.expect_download() as download:
            link.click()
        return download.value.suggested_filename, download.value.path().read_bytes()

    def unpacked(link: Locator) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(taken(link)[1])) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}

    row = file_row(page, "a 文件.bin")
    row.hover()
    assert taken(row.get_by_role("link")) == ("a 文件.bin", files["a 文件.bin"])
    assert unpacked(page.get_by_role("link", name="Download all (ZIP)")) == files
    file_row(page, "d.txt").focus()
    page.keyboard.press("Space")
    file_row(page, "folder").focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("2 selected")).to_be_visible()
    del files["a 文件.bin"]
    assert unpacked(page.get_by_role("link", name="Download as ZIP")) == files


def test_scenario_20_a_page_of_the_task_is_shown_apart(console: Console) -> None:
    """It runs, but has no cookie, no way into the page around it, and none to the API."""
    _, task_id, _ = held_task(console, **{"page.html": PAGE.encode()})

    drawer = shown_file(console, task_id, "page.html")

    expect(drawer.frame_locator("iframe").locator("#told")).to_have_text("kept kept kept kept")
    assert drawer.locator("iframe").get_attribute("sandbox") == "allow-scripts"
    drawer.get_by_role("button", name="Source").click()
    expect(drawer.locator(".line").first).to_contain_text("<!doctype html>")
    console.expects("Content Security Policy")


def editing(hold: Hold) -> Script:
    edits = [
        call("edit_file", path="app.py", old="total = 1", new="total = 2", id="a"),
        call("write_file", path="new.txt", content="one\ntwo\n", id="b"),
    ]
    return turns(
        Reply(calls=edits, held=hold),
        Reply(calls=[call("shell", command="echo x >> notes.txt; rm old.txt", id="c")]),
        Reply("Done."),
    )


def test_changes_are_compared_as_far_as_they_are_known(console: Console) -> None:
    hold = Hold()
    console.plays(editing(hold), goal="Edit and")
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Edit and compare", hold=True)["id"]
    program = "".join(f"line_{number} = {number}\n" for number in range(20)) + "total = 1\n"
    for path, content in (("app.py", program), ("notes.txt", "n\n"), ("old.txt", "o\n")):
        client.upload_file(task_id, path, content)
    hold.let_go()
    client.start_task(task_id)
    list(client.stream_task_updates(task_id))
    page = console.logged_in_page(person, Look(CHINESE.language, theme="dark", size=DESKTOP.size))

    console.open(f"/tasks/{task_id}")
    page.get_by_role("tab", name=re.compile("改动")).click()

    def opened(path: str) -> Locator:
        change = page.locator(f'[data-change="{path}"]')
        change.get_by_role("button").first.click()
        return change

    program_change = opened("app.py")
    expect(program_change).to_contain_text("+1 −1")
    expect(program_change.locator("tr.removed mark")).to_have_text("1")
    expect(program_change.locator("tr.added mark")).to_have_text("2")
    program_change.get_by_role("button", name="17 行未改动").click()
    expect(program_change).to_contain_text("line_0 = 0")
    expect(opened("new.txt")).to_contain_text("+2 −0")
    expect(opened("notes.txt")).to_contain_text("改动前的内容没有记录")
    expect(opened("old.txt")).to_contain_text("删除前的内容没有记录")
    assert accessibility_flaws(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_file_that_changes_while_it_is_open_is_told(console: Console) -> None:
    holds = [Hold(), Hold()]
    console.plays(
        turns(
            Reply(calls=[call("write_file", path="a.txt", content="second\n", id="a")], held=holds[0]),
            Reply(calls=[call("shell", command="rm a.txt", id="b")], held=holds[1]),
            Reply("Done."),
        ),
        goal="Change what",
    )
    person = console.register()
    client = console.client(person)
    task_id = client.create_task("Change what I look at", hold=True)["id"]
    client.upload_file(task_id, "a.txt", b"first\n")
    client.start_task(task_id)
    console.logged_in_page(person)
    drawer = shown_file(console, task_id, "a.txt")
    expect(drawer.locator(".line")).to_have_text("first")

    holds[0].let_go()
    expect(drawer).to_contain_text("The file has changed")
    drawer.get_by_role("button", name="Reload").click()
    expect(drawer.locator(".line")).to_have_text("second")
    expect(drawer).not_to_contain_text("The file has changed")

    holds[1].let_go()
    expect(drawer).to_contain_text("The file has been deleted")
    expect(drawer.locator(".line")).to_have_text("second")
    list(client.stream_task_updates(task_id))


def test_the_tree_is_used_by_keyboard_alone(console: Console) -> None:
    client, task_id, page = held_task(console, **{"b/c/d.txt": b"d", "b/e.txt": b"e", "z.txt": b"z"})
    console.open(f"/tasks/{task_id}")
    press = page.keyboard.press

    file_row(page, "b").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        press(key)
    expect(file_row(page, "b/c/d.txt")).to_be_visible()
    press("ArrowRight")
    expect(file_row(page, "b/c/d.txt")).to_be_focused()
    press("Enter")
    drawer = page.get_by_role("dialog", name="d.txt")
    expect(drawer.locator(".line")).to_have_text("d")
    press("Escape")
    expect(file_row(page, "b/c/d.txt")).to_be_focused()
    press("ArrowLeft")
    press("ArrowLeft")
    expect(file_row(page, "b/c")).to_have_attribute("aria-expanded", "false")
    press("z")
    expect(file_row(page, "z.txt")).to_be_focused()
    press("Delete")
    expect(page.get_by_role("dialog", name="Delete z.txt?")).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).last.click()

    expect(file_row(page, "z.txt")).to_have_count(0)
    expect(page.locator("[role=treeitem]:focus")).to_have_count(1)
    assert [node["name"] for node in client.list_files_tree(task_id)] == ["b"]
