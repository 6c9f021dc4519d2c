"""How answers show themselves in a notebook: nothing but text of what came from outside, and never an error."""

import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beray import notebook
from beray.notebook import files_html, task_html, tasks_html

TASK: dict[str, Any] = {
    "id": 42,
    "goal": "Draw a chart.",
    "status": "completed",
    "created_at": "2026-01-05T09:30:00.120Z",
    "finished_at": "2026-01-05T09:31:00.000Z",
    "result": "chart.png shows all twelve months.",
    "error": None,
    "model": "openai:gpt-5",
    "run": 1,
    "usage": {"requests": 5, "tool_calls": 2, "input_tokens": None, "output_tokens": None, "cost_usd": 0.01},
    "stop_requested": False,
    "question": None,
}
TAGS = {
    "div",
    "span",
    "b",
    "bdi",
    "code",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "ul",
    "li",
}
ATTRIBUTES = {"style", "dir", "class", "open"}
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "' style='position:fixed;inset:0' onclick='alert(1)",
    "</div></details></table><iframe srcdoc=x>",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!-- <style>*{display:none}</style> -->",
    "<![CDATA[<b>x</b>]]>",
    "$\\href{javascript:alert(1)}{x}$",
    "\x1b]8;;http://x\x07click\x00\ud800",
    "photo\u202egnp.exe",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ATTACKS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
tasks = st.fixed_dictionaries(
    dict.fromkeys(("id", "goal", "status"), json_values),
    optional=dict.fromkeys((*(TASK.keys() - {"id", "goal", "status"}), "events"), json_values),
)


class Page(HTMLParser):
    """What a browser would make of the HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.styles: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        self.styles |= {value or "" for name, value in attrs if name == "style"}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = unknown_decl = handle_pi = handle_comment


def node(name: Any, **fields: Any) -> dict[str, Any]:
    return {"name": name, "path": name, "type": "file", "size": 2048, "modified_at": "", **fields}


def folder(name: str, *children: Any, **fields: Any) -> dict[str, Any]:
    return node(name, type="directory", children=list(children), **fields)


def called(call_id: str, title: str, **ended: Any) -> list[dict[str, Any]]:
    started = {"type": "tool.started", "call_id": call_id, "title": title}
    return [started, {"type": "tool.finished", "call_id": call_id, **ended}] if ended else [started]


# What is shown


def test_a_task_shows_how_it_stands_and_what_came_of_it() -> None:
    text = Page(task_html(TASK) or "").text

    assert text.startswith("task 42 · ● completed · openai:gpt-5Draw a chart.")
    assert "chart.png shows all twelve months." in text
    assert text.endswith("2026-01-05T09:31:00.000Z · requests 5 · tool_calls 2 · cost_usd 0.01")


def test_a_failed_task_shows_why_and_what_to_do() -> None:
    error = {"code": "model_auth", "message": "The key is wrong.", "hint": "Set another.", "retryable": False}

    text = Page(task_html(TASK | {"status": "failed", "result": None, "error": error, "run": 2}) or "").text

    assert "● failed · openai:gpt-5 · run 2" in text
    assert "● model_auth The key is wrong.Set another." in text


def test_a_task_that_waits_shows_its_question() -> None:
    question = {"question_id": "c1", "question": "Which colour?", "choices": ["red", "green"]}

    text = Page(task_html(TASK | {"status": "waiting", "question": question, "stop_requested": True}) or "").text

    assert "● waiting · being stopped" in text
    assert "Which colour?red / green" in text


def test_what_the_agent_did_is_folded() -> None:
    events = [
        {"type": "task.created"},
        *called("c1", "Run: ls", ok=True, summary="exit 0"),
        *called("c2", "Run: false", ok=False, summary="exit 1"),
        *called("c3", "Run: sleep"),
    ]

    html = task_html(TASK | {"events": events}) or ""

    assert "<details><summary>6 events, 3 tool calls</summary>" in html
    assert "✓Run: lsexit 0✗Run: falseexit 1…Run: sleep" in Page(html).text
    assert Page(html).text.endswith("tool.started 3 · tool.finished 2 · task.created 1")


def test_tasks_are_a_table() -> None:
    html = tasks_html([TASK, TASK | {"id": 41, "model": None}]) or ""

    assert html.count("<tr>") == 3
    assert "42● completedDraw a chart.openai:gpt-5" in Page(html).text


def test_files_are_a_tree() -> None:
    tree = [
        folder(
            "data", folder("raw", node("a.csv", size=10), folder("deep", node("b"))), folder("empty"), truncated=True
        ),
        node("latest", type="symlink", size=5),
        node("large", size=3 * 1024**3),
    ]

    html = files_html(tree) or ""

    assert html.count("<details open>") == 2
    assert html.count("<details>") == 1
    shown = "data/ (not all shown)raw/a.csv 10 Bdeep/b 2.0 KiBempty/latest ↗ 5 Blarge 3.0 GiB"
    assert Page(html).text == shown
    assert Page(files_html([]) or "").text == "no files"


def test_what_is_long_is_cut() -> None:
    long = TASK | {"goal": "g" * 10_000, "result": "r" * 1_000_000, "events": called("c", "t" * 10_000) * 1000}

    assert len(task_html(long) or "") < 20_000
    assert "… and 400 more" in (tasks_html([TASK] * 500) or "")
    assert "… and 700 more" in (files_html([node("f")] * 1000) or "")


def test_a_tree_of_any_depth_is_shown_as_far_as_it_goes() -> None:
    tree = folder("bottom")
    for _ in range(5000):
        tree = folder("f", tree)

    assert (files_html([tree]) or "").count("<details") == notebook.MOST_LEVELS


def test_what_is_something_else_is_left_to_the_notebook() -> None:
    assert [task_html(task) for task in ({"detail": "no task"}, {"id": 1})] == [None, None]
    assert [tasks_html(tasks) for tasks in ([], [1], [{}], [TASK, []])] == [None] * 4
    assert [files_html(nodes) for nodes in ([1], [[]], [{}], [node("f"), None])] == [None] * 4


# Attacks


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_outside_becomes_more_than_text(attack: str) -> None:
    question = {"question_id": attack, "question": attack, "choices": [attack]}
    events = [{"type": attack}, *called(attack, attack, ok=True, summary=attack)]
    texts = dict.fromkeys(("id", "goal", "status", "result", "model", "created_at", "finished_at"), attack)
    error = {"code": attack, "message": attack, "hint": attack}
    task = TASK | texts | {"error": error, "question": question, "events": events, "usage": {"requests": attack}}
    tree = [folder(attack, node(attack, size=attack), truncated=attack), node(attack, type=attack)]

    own = Page(task_html(TASK | {"status": None, "error": error, "question": question, "events": events}) or "").styles
    for html in (task_html(task), tasks_html([task]), files_html(tree)):
        page = Page(html or "")
        page.text.encode()
        assert attack in page.text or not attack.isprintable()
        assert html is not None
        assert "\x00" not in html
        assert "\u202e" not in html
    assert Page(task_html(task) or "").styles <= own | {""}


@given(tasks)
@example({"id": float("nan"), "goal": None, "status": ["running"], "run": True, "events": [None, {"call_id": []}]})
def test_any_task_is_shown(task: Any) -> None:
    Page(task_html(task) or "")
    Page(tasks_html([task, task]) or "")


@given(st.lists(st.fixed_dictionaries({"name": json_values}, optional={"children": json_values, "size": json_values})))
@example([{"name": "n", "size": float("nan")}, {"name": "n", "size": float("inf")}, {"name": "n", "size": -1}])
def test_any_tree_is_shown(nodes: Any) -> None:
    Page(files_html(nodes) or "")


def test_formulas_are_not_looked_for() -> None:
    """MathJax would take what stands between two dollar signs for TeX."""
    assert '<div class="tex2jax_ignore mathjax_ignore"' in (task_html(TASK) or "")


def test_the_html_is_loaded_when_it_is_shown() -> None:
    program = """
import sys
from beray.protocol.calls import get_task
task = get_task(1).shown({"id": 1, "goal": "g", "status": "running"})
assert "beray.notebook" not in sys.modules and "html" not in sys.modules
assert "running" in task._repr_html_() and "beray.notebook" in sys.modules
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)
