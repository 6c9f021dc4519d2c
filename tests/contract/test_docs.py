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
from tests.support.snippets import run_snippet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LANGUAGES = ("zh", "en")
CJK = re.compile(r"[\u4e00-\u9fff]")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMON_FIELDS = {"v", "seq", "at", "task_id", "type"}

both_languages = pytest.mark.parametrize("language", LANGUAGES)


def page(language: str, name: str) -> str:
    return (DOCS / language / f"{name}.md").read_text(encoding="utf-8")


def page_names(language: str) -> list[str]:
    return sorted(str(path.relative_to(DOCS / language)) for path in (DOCS / language).rglob("*.md"))


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

    listed = re.findall(r"^  - .+: (\S+\.md)$", config, re.MULTILINE)
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
    """The token of the account that the quick start logs in to."""
    return server.register("user@example.com", "your_secure_password")


@both_languages
def test_snippets_of_the_quick_start_run(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    snippets = [code for kind, code in FENCE.findall(page(language, "quick-start")) if kind == "python"]

    outputs = [run_snippet(snippet, server, tmp_path) for snippet in snippets]

    work, files, refusal = outputs
    assert work.startswith("1 task.created\n2 task.started\n")
    assert 'task.finished\ncompleted\nprint("hello world")\n' in work
    assert files == "created sorted.txt\n"
    assert (tmp_path / "result" / "sorted.txt").read_bytes() == b"Ada\nZoe\n"
    assert refusal.startswith("404 task_not_found ")
    assert bool(CJK.search(refusal)) is (language == "zh")


@both_languages
def test_snippet_about_limits_runs(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    snippet, *others = [code for kind, code in FENCE.findall(page(language, "limits")) if kind == "python"]

    shown = run_snippet(snippet, server, tmp_path)

    assert "'requests': 2" in shown
    assert others == []


@both_languages
def test_snippet_about_api_tokens_runs(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    [snippet] = [code for kind, code in FENCE.findall(page(language, "accounts")) if kind == "python"]

    shown = run_snippet(snippet, server, tmp_path).splitlines()

    assert " nightly build 20" in shown[0]
    assert shown[1] == "user@example.com"


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


@both_languages
def test_snippet_of_the_conversation_runs(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    [snippet] = [code for kind, code in FENCE.findall(page(language, "conversation")) if kind == "python"]

    assert run_snippet(snippet, server, tmp_path) == "2\ncompleted\n"


@both_languages
def test_snippets_about_types_run(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    snippets = [code for kind, code in FENCE.findall(page(language, "types-and-notebooks")) if kind == "python"]

    outputs = [run_snippet(snippet, server, tmp_path) for snippet in snippets]

    assert outputs == ["hello\ncompleted, cost unknown\n", "", ""]


@both_languages
def test_snippets_about_files_run(language: str, server: ServerProcess, account: str, tmp_path: Path) -> None:
    """In their order; `tqdm` is none of our dependencies, so it is one with the same face."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "names.txt").write_text("Zoe\nAda\n")
    (tmp_path / "report.csv").write_text("a,b\n")
    (tmp_path / "tqdm.py").write_text(BAR)
    snippets = [code for kind, code in FENCE.findall(page(language, "files-sdk")) if kind == "python"]

    up, down, rich, tqdm, everything = (run_snippet(snippet, server, tmp_path) for snippet in snippets)

    assert up == "data/names.txt 8\n"
    assert down == "sorted.txt\nnames.txt\n4\n"
    assert (tmp_path / "sorted.txt").read_text() == (tmp_path / "unpacked" / "sorted.txt").read_text() == "Ada\nZoe\n"
    assert (tmp_path / "copy of data" / "names.txt").read_text() == "Zoe\nAda\n"
    assert "100%" in rich
    assert tqdm == "4 of 4\n"
    assert everything == "names.txt\nnames.txt\nnames.txt\nnotes.txt\nreport.csv\nsorted.txt\n"
    assert (tmp_path / "copy.csv").read_text() == "a,b\n"


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
        print(self.n, "of", self.total)
"""


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
