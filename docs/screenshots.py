"""Take the pictures of the console that the documents show, from a real run of a scripted model.

    uv run python docs/screenshots.py       `make screenshots`; needs chromium

A server of its own is started on a free port and in a folder of its own; each language's pages get pictures in that
language, below docs/{zh,en}/images/.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

sys.path.insert(0, str(Path(__file__).parent.parent))

from beray.client import BeRayClient
from tests.support.browser import Chromium, Look, chromium_lacks
from tests.support.console import log_in
from tests.support.scripted_model import Hold, Reply, Script, ScriptedModel, call, turns
from tests.support.server import PASSWORD, ServerProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS: Final = Path(__file__).parent
Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")
DESKTOP: Final = (1360, 900)
PHONE: Final = (390, 844)
IS_WHOLE: Final = """() => document.fonts.status === "loaded" && [...document.images].every((image) => image.complete)
    && !document.querySelector("[aria-busy=true]")"""
EMAIL: Final = {"zh": "lin@example.com", "en": "robin@example.com"}

SALES: Final = "month,region,units\n" + "".join(
    f"2026-{month:02},{region},{start + month * rise}\n"
    for month in range(1, 7)
    for region, start, rise in (("north", 120, 14), ("south", 90, 31), ("west", 150, -6))
)
ANALYSE: Final = """import csv
from collections import defaultdict

totals = defaultdict(int)
with open("sales.csv", newline="") as file:
    for row in csv.DictReader(file):
        totals[row["region"]] += int(row["units"])

most = max(totals.values())
bars = []
for number, (region, units) in enumerate(sorted(totals.items(), key=lambda item: -item[1])):
    y = 20 + number * 44
    bars.append(f'<text x="8" y="{y + 20}">{region}</text>')
    bars.append(f'<rect x="80" y="{y}" width="{units / most * 260:.0f}" height="28" rx="4" fill="#0b6b63"/>')
    bars.append(f'<text x="{90 + units / most * 260:.0f}" y="{y + 20}">{units}</text>')
    print(f"\\x1b[32m{region:<6}\\x1b[0m {units:>5}")

with open("chart.svg", "w") as file:
    style = 'font-family="sans-serif" font-size="14"'
    file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 160" {style}>{"".join(bars)}</svg>')
"""


@dataclass(frozen=True)
class Story:
    """What is said in one language."""

    goal: str
    plan: tuple[str, str, str]
    begin: str
    look: str
    report: str
    done: str
    earlier: tuple[str, ...]
    ask: str
    question: str
    choices: tuple[str, ...]


STORIES: Final[dict[Language, Story]] = {
    "en": Story(
        goal="Which region sold best in sales.csv? Write a short report with a chart.",
        plan=("Look at the data", "Add up the units by region, draw a chart", "Write report.md"),
        begin="I'll look at the data first, then add it up by region.",
        look="Three regions, six months. The script adds up the units and draws a bar for each region.",
        report="# Sales by region\n\n![Units by region](chart.svg)\n\n| region | units |\n| --- | ---: |\n"
        "| south | 1191 |\n| north | 1014 |\n| west | 774 |\n\n**South** leads, and grows by 31 units a month;\n"
        "west loses 6 a month.\n",
        done="**South sold best**: 1,191 units from January to June, ahead of north (1,014) and west (774). It also"
        " grows fastest, by 31 units a month."
        "\n\nThe report is in `report.md`, its chart in `chart.svg`.",
        earlier=(
            "Rename the photos by the day they were taken",
            "Find the broken links in docs/",
            "Summarise minutes.pdf",
        ),
        ask="Make a logo for the spring fair",
        question="Which style should the logo have?",
        choices=("Flat, two colours", "Drawn by hand", "Only letters"),
    ),
    "zh": Story(
        goal="sales.csv 里哪个地区卖得最好？写一份带图表的简短报告。",
        plan=("查看数据", "按地区合计销量并画图", "写 report.md"),
        begin="我先看看数据，再按地区合计。",
        look="三个地区，六个月。脚本合计各地区的销量，并为每个地区画一根柱子。",
        report="# 各地区销量\n\n![各地区销量](chart.svg)\n\n| 地区 | 销量 |\n| --- | ---: |\n"
        "| south | 1191 |\n| north | 1014 |\n| west | 774 |\n\n**south** 领先，每月增加 31 件；west 每月减少 6 件。\n",
        done="**south 卖得最好**：一月到六月共 1191 件，超过 north（1014 件）和 west（774 件）。"
        "它的增长也最快，每月增加 31 件。\n\n报告在 `report.md` 中，图表在 `chart.svg` 中。",
        earlier=("按拍摄日期重命名照片", "找出 docs/ 中失效的链接", "总结 minutes.pdf"),
        ask="为春季市集设计一个标志",
        question="标志要什么风格？",
        choices=("扁平，双色", "手绘", "只用文字"),
    ),
}


def script_of(story: Story, hold: Hold) -> Script:
    """The analysis; what is asked for beside it; and one that is held back, so that something is running."""
    analysis = turns(
        Reply([story.begin], calls=[call("update_plan", items=_plan(story, doing=0))], usage=(2210, 96)),
        Reply(calls=[call("shell", command="head -4 sales.csv && wc -l sales.csv")], usage=(2480, 41)),
        Reply([story.look], calls=[call("write_file", path="analyse.py", content=ANALYSE)], usage=(2710, 388)),
        Reply(calls=[call("shell", command="python3 analyse.py")], usage=(3160, 35)),
        Reply(calls=[call("update_plan", items=_plan(story, doing=2))], usage=(3290, 88)),
        Reply(calls=[call("write_file", path="report.md", content=story.report)], usage=(3420, 164)),
        Reply(calls=[call("update_plan", items=_plan(story, doing=3))], usage=(3640, 90)),
        Reply(calls=[call("finish", summary=story.done, files=["report.md", "chart.svg"])], usage=(3780, 120)),
    )
    asking = turns(
        Reply(calls=[call("ask_user", question=story.question, choices=list(story.choices))], usage=(1900, 60)),
        Reply([story.done]),
    )
    short = turns(Reply([story.done], usage=(1820, 90)))

    def script(request: dict[str, object], number: int) -> Reply:
        said = str(request["messages"])
        if story.goal in said:
            return analysis(request, number)
        if story.ask in said:
            return asking(request, number)
        return replace(short(request, number), held=hold) if story.earlier[0] in said else short(request, number)

    return script


def _plan(story: Story, *, doing: int) -> list[dict[str, str]]:
    states = ["done" if at < doing else "doing" if at == doing else "todo" for at in range(len(story.plan))]
    return [{"text": text, "status": status} for text, status in zip(story.plan, states, strict=True)]


# A browser without windows refuses notifications by itself; others have not been asked yet.
NOT_ASKED: Final = "Object.defineProperty(Notification, 'permission', { get: () => 'default' })"


@dataclass(frozen=True)
class Set:
    """A server with the story's tasks, and who looks at them."""

    server: ServerProcess
    chromium: Chromium
    language: Language
    token: str
    task_id: int
    asking_id: int

    @contextmanager
    def page(self, *, theme: Literal["light", "dark"] = "light", size: tuple[int, int] = DESKTOP) -> Iterator["Page"]:
        """A page of the console, sharp enough for print."""
        look = Look("zh-CN" if self.language == "zh" else "en-US", theme=theme, size=size)
        with self.chromium.lent() as browser:
            context = browser.new_context(**look.options(), device_scale_factor=2 if size == PHONE else 1.5)
            context.add_init_script(NOT_ASKED)
            log_in(context, self.token)
            try:
                yield context.new_page()
            finally:
                context.close()

    def take(self, page: "Page", name: str) -> None:
        """Write the picture once everything on the page is there."""
        page.wait_for_function(IS_WHOLE)
        folder = DOCS / self.language / "images"
        folder.mkdir(exist_ok=True)
        page.screenshot(path=folder / f"console-{name}.png", animations="disabled", caret="hide")

    def url(self, path: str) -> str:
        return self.server.base_url + path


def shoot(stage: Set) -> None:
    """All pictures in one language."""
    task = stage.url(f"/tasks/{stage.task_id}")
    with stage.page() as page:
        page.goto(task)
        page.get_by_text("report.md").first.wait_for()
        stage.take(page, "task-light")
        page.goto(stage.url(f"/tasks/{stage.asking_id}"))
        page.get_by_text(STORIES[stage.language].choices[0]).first.wait_for()
        stage.take(page, "question-light")
        page.goto(stage.url("/"))
        page.get_by_text(STORIES[stage.language].earlier[0]).first.wait_for()
        stage.take(page, "home-light")
        page.goto(stage.url("/settings"))
        stage.take(page, "settings-light")
    with stage.page(theme="dark") as page:
        page.goto(f"{task}#file=report.md")
        page.locator("dialog[open] table").wait_for()
        stage.take(page, "task-dark")
    with stage.page(size=PHONE) as page:
        page.goto(task)
        page.get_by_text("report.md").first.wait_for()
        stage.take(page, "task-mobile")


def play(server: ServerProcess, story: Story, token: str) -> tuple[int, int]:
    """Have the tasks done; the ids of the one with the report, and of the one that asks."""
    with BeRayClient(server.base_url, token=token) as client:
        for goal in story.earlier[1:]:
            list(client.stream_task_updates(client.create_task(goal)["id"]))
        client.create_task(story.earlier[0])
        asking = client.create_task(story.ask)["id"]
        task = client.create_task(story.goal, hold=True)["id"]
        client.upload_file(task, "sales.csv", SALES)
        client.start_task(task)
        list(client.stream_task_updates(task))
        wait_until(lambda: client.get_task(asking)["status"] == "waiting", what="the question")
        return task, asking


def main() -> int:
    """Take all pictures."""
    if lack := chromium_lacks():
        print(f"no pictures: {lack}", file=sys.stderr)
        return 1
    with Chromium() as chromium:
        for language in LANGUAGES:
            hold = Hold()
            script = script_of(STORIES[language], hold)
            with tempfile.TemporaryDirectory(prefix="beray-") as folder, ScriptedModel(script) as model:
                Path(folder).chmod(0o755)  # the sandbox's own user goes through it
                server = ServerProcess(
                    Path(folder) / "data",
                    language=language,
                    model="openai:scripted",
                    model_base_url=model.base_url,
                    model_api_key="key",
                ).start()
                try:
                    token = server.register(EMAIL[language], PASSWORD)
                    task_id, asking_id = play(server, STORIES[language], token)
                    shoot(Set(server, chromium, language, token, task_id, asking_id))
                finally:
                    hold.let_go()
                    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
