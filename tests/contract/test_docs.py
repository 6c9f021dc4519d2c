"""The documentation is true: it names everything there is, in both languages, and its programs run."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from beray.client import BeRayClient
from beray.protocol.types import Event, EventType
from beray.server.agent.models.choice import PROVIDERS
from beray.server.agent.models.prices import load_prices
from beray.server.audit import ACTIONS
from beray.server.auth.rates import RULES
from beray.server.errors import STATUS_OF
from beray.server.messages import MESSAGES
from beray.server.sandbox.base import Confinement
from beray.server.settings import Settings, env_name
from tests.support.server import ServerProcess
from tests.support.snippets import FENCE, is_as_told, programs_of, run_programs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LANGUAGES = ("zh", "en")
CJK = re.compile(r"[\u4e00-\u9fff]")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMON_FIELDS = {"v", "seq", "at", "task_id", "type"}

both_languages = pytest.mark.parametrize("language", LANGUAGES)


def page(language: str, name: str) -> str:
    if name == "README":
        return (ROOT / ("README.md" if language == "en" else "README.zh-CN.md")).read_text(encoding="utf-8")
    return (DOCS / language / f"{name}.md").read_text(encoding="utf-8")


def page_names(language: str) -> list[str]:
    return sorted(str(path.relative_to(DOCS / language)) for path in (DOCS / language).rglob("*.md"))


def pages_with_programs() -> list[str]:
    """Those whose programs are tested here; a tool and a receiver of webhooks are run by tests of their own."""
    names = ["README", *(name.removesuffix(".md") for name in page_names("en"))]
    return [name for name in names if programs_of(page("en", name)) and name not in {"write-a-tool", "webhooks"}]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def first_cells(text: str) -> list[str]:
    """What stands as code in the first cell of the tables' rows."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def event_fields(language: str) -> dict[str, set[str]]:
    """The further fields of each event type, as the page has them."""
    rows = re.findall(r"^\| `(\w+\.\w+|error)` \| ((?:`\w+`(?:, )?)+) \|", page(language, "events"), re.MULTILINE)
    return {type_: set(re.findall(r"\w+", names)) for type_, names in rows}


# Both languages say the same


def test_both_languages_have_the_same_pages() -> None:
    assert page_names("zh") == page_names("en")
    assert "index.md" in page_names("en")


@pytest.mark.parametrize("name", page_names("en"))
def test_page_has_the_same_headings_in_both_languages(name: str) -> None:
    chinese, english = (HEADING.findall(prose(page(language, name.removesuffix(".md")))) for language in LANGUAGES)

    assert [level for level, _ in chinese] == [level for level, _ in english]
    assert not any(CJK.search(title) for _, title in english)
    assert english[0][0] == "#"


@pytest.mark.parametrize("name", page_names("en"))
def test_page_has_the_same_tables_and_code_in_both_languages(name: str) -> None:
    chinese, english = (page(language, name.removesuffix(".md")) for language in LANGUAGES)

    assert first_cells(chinese) == first_cells(english)
    assert [kind for kind, _ in FENCE.findall(chinese)] == [kind for kind, _ in FENCE.findall(english)]


@both_languages
def test_every_page_is_in_the_navigation(language: str) -> None:
    config = (ROOT / ("mkdocs.yml" if language == "zh" else "mkdocs.en.yml")).read_text(encoding="utf-8")

    listed = re.findall(r"^ +- .+: (\S+\.md)$", config, re.MULTILINE)
    assert sorted(listed) == page_names(language)


@both_languages
def test_links_between_pages_lead_somewhere(language: str) -> None:
    for name in page_names(language):
        folder = (DOCS / language / name).parent
        for link in LINK.findall(prose((DOCS / language / name).read_text(encoding="utf-8"))):
            assert link.startswith(("http://", "https://")) or (folder / link.partition("#")[0]).is_file(), (name, link)


# Everything there is, is documented


@both_languages
def test_every_setting_is_documented(language: str) -> None:
    assert first_cells(page(language, "settings")) == [env_name(field.name) for field in fields(Settings)]


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_setting_is_explained_in_both_languages(name: str) -> None:
    setting = next(field for field in fields(Settings) if field.name == name).metadata["setting"]

    assert CJK.search(setting.help_zh)
    assert not CJK.search(setting.help)


@both_languages
def test_every_event_type_is_documented_with_its_fields(language: str) -> None:
    documented = event_fields(language)

    assert set(documented) == set(get_args(EventType))
    assert documented == event_fields("en")
    explained = set(first_cells(page(language, "events"))) - set(documented) | {"error"}
    assert explained == COMMON_FIELDS.union(*documented.values())


def test_types_of_events_have_the_documented_fields() -> None:
    """Of an `error`, the row says in words when it has a `budget`."""
    documented = event_fields("en")
    documented["error"].add("budget")

    for member in get_args(Event):
        hints = get_type_hints(member)
        [type_] = get_args(hints["type"])
        assert hints.keys() == documented[type_] | COMMON_FIELDS, type_


@both_languages
def test_every_error_code_is_documented(language: str) -> None:
    documented = set(first_cells(page(language, "errors")))

    assert documented >= set(STATUS_OF)
    with_hint = {key.removesuffix("_hint").removeprefix("task_") for key in MESSAGES if key.endswith("_hint")}
    assert documented >= with_hint - {"rules", "rules_step"}
    assert documented >= set(re.findall(r'_error\(\s*"(rules_\w+)"', _source("server/agent/models/rules_model.py")))


def _source(path: str) -> str:
    return (ROOT / "beray" / path).read_text(encoding="utf-8")


@both_languages
def test_every_action_of_the_audit_log_is_documented(language: str) -> None:
    assert first_cells(page(language, "accounts"))[-len(ACTIONS) :] == list(ACTIONS)


@both_languages
def test_every_limit_of_rates_is_documented(language: str) -> None:
    documented = re.findall(r"\d+", page(language, "accounts").partition("\n## ")[2].partition("\n## ")[0])

    assert {str(rule.limit.amount) for rules in RULES.values() for rule in rules} <= set(documented)


@both_languages
def test_every_provider_is_documented(language: str) -> None:
    text = page(language, "models")

    assert set(first_cells(text)) == set(PROVIDERS)
    assert all(key in text for provider in PROVIDERS.values() for key in provider.key_names)


@both_languages
def test_every_sandbox_and_what_it_confines_is_documented(language: str) -> None:
    choices = next(field for field in fields(Settings) if field.name == "sandbox").metadata["setting"]
    names = get_args(Confinement.__annotations__["name"])

    documented = first_cells(page(language, "sandbox"))
    assert documented[-len(names) :] == list(names)
    assert all(name in choices.help for name in documented[: -len(names)])


def test_generated_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


# What the pages show, happens


@pytest.fixture(scope="session")
def account(server: ServerProcess) -> str:
    """The token of the account that the pages log in to."""
    return server.register("user@example.com", "your_secure_password")


@pytest.fixture
def readers_folder(tmp_path: Path) -> Path:
    """What lies where a reader works. `tqdm` is none of our dependencies, so it is one with the same face."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "names.txt").write_text("Zoe\nAda\n")
    (tmp_path / "report.csv").write_text("a,b\n")
    (tmp_path / "tqdm.py").write_text(BAR)
    return tmp_path


@pytest.mark.parametrize("name", pages_with_programs())
def test_programs_run_and_print_what_their_page_says(
    name: str, server: ServerProcess, account: str, readers_folder: Path
) -> None:
    """In their order. Those of the other language too, where they are not the same."""
    english, chinese = (programs_of(page(language, name)) for language in ("en", "zh"))
    told = english + [program for program in chinese if program not in english]

    outputs = run_programs(told, server, readers_folder, token=account)

    for program, printed in zip(told, outputs, strict=True):
        assert program.output is None or is_as_told(printed, program.output), (program.source, printed)


@pytest.mark.parametrize("name", pages_with_programs())
def test_whoever_prints_says_what(name: str) -> None:
    """A program that prints has its output below it, or below its twin for the other client."""
    programs = programs_of(page("en", name))

    assert [program.source for program in programs if "print(" in program.source and program.output is None] == []


BAR = """
class tqdm:
    total, n = None, 0

    def __init__(self, **options):
        assert options == {"unit": "B", "unit_scale": True}

    def __enter__(self):
        return self

    def update(self, by):
        self.n += by

    def __exit__(self, *error):
        assert self.n == self.total == 4
"""


@both_languages
def test_example_of_a_price_table_can_be_used(language: str, tmp_path: Path) -> None:
    example = next(code for kind, code in FENCE.findall(page(language, "limits")) if kind == "json")
    (tmp_path / "prices.json").write_text(example)

    assert load_prices(tmp_path / "prices.json").find("ollama:qwen3") is not None


@both_languages
def test_the_example_of_a_tool_is_the_tested_one(language: str) -> None:
    """Which a real server runs (tests/e2e/test_plugin.py)."""
    shown = dict(FENCE.findall(page(language, "write-a-tool")))

    assert shown["python"] == (ROOT / "examples/tool_plugin/office_tools.py").read_text(encoding="utf-8")
    assert shown["toml"] == (ROOT / "examples/tool_plugin/pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("goal", "types"),
    [
        ("写一个打印 hello world 的 Python 脚本", {"tool.output", "file.changed", "text.done", "task.finished"}),
        ("`false`", {"tool.finished", "error", "task.finished"}),
        ("Write a poem", {"error", "task.finished"}),
    ],
)
def test_events_have_the_documented_fields(goal: str, types: set[str], client: BeRayClient) -> None:
    task = client.create_task(goal)

    seen: dict[str, set[str]] = {}
    for event in client.stream_task_updates(task["id"]):
        fields_of_event: dict[str, Any] = event
        seen.setdefault(event["type"], set()).update(fields_of_event)

    assert seen.keys() >= types
    documented = event_fields("en")
    assert seen == {type_: documented[type_] | COMMON_FIELDS for type_ in seen}


# What is said about durability has been proven


@both_languages
def test_every_promise_names_a_test_that_exists(language: str) -> None:
    known = {name for path in (ROOT / "tests").rglob("test_*.py") for name in TEST.findall(path.read_text())}
    text = page(language, "explanation/durability")
    rows = re.findall(r"^\| (?!---|promise|fault|承诺|故障)(.*) \|$", text, re.MULTILINE)

    assert len(rows) >= 20
    assert [row for row in rows if not re.search(r"`test_\w+`$", row)] == []
    assert sorted(set(re.findall(r"`(test_\w+)`", text)) - known) == []


def test_durability_names_the_same_tests_in_both_languages() -> None:
    chinese, english = (re.findall(r"`(test_\w+)`", page(language, "explanation/durability")) for language in LANGUAGES)

    assert chinese == english


TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
