"""The catalogue of sentences is complete: every code, both languages, the same fields."""

import re
import string
from pathlib import Path

import pytest

import beray.server
from beray.server.errors import STATUS_OF, Refused, problem
from beray.server.messages import MESSAGES

SOURCES = sorted(Path(beray.server.__file__).parent.rglob("*.py"))
CJK = re.compile(r"[\u4e00-\u9fff]")


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize("key", MESSAGES)
def test_both_languages_name_the_same_fields(key):
    chinese, english = MESSAGES[key]

    assert fields(chinese) == fields(english)
    assert CJK.search(chinese)
    assert not CJK.search(english)


@pytest.mark.parametrize("code", STATUS_OF)
def test_every_code_has_a_sentence(code):
    assert code in MESSAGES


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_refusal_in_the_source_is_catalogued(source):
    named = re.findall(r"""Refused\(\s*["']([a-z_.]+)["']""", source.read_text(encoding="utf-8"))

    assert [code for code in named if code not in STATUS_OF] == []


def test_every_code_is_used():
    """A code nobody raises is dead."""
    text = "".join(
        path.read_text(encoding="utf-8") for path in SOURCES if path.name not in {"errors.py", "messages.py"}
    )

    assert [code for code in STATUS_OF if f'"{code}"' not in text] == []


def test_every_sentence_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "messages.py")

    unused = [key for key in MESSAGES if not key.startswith("invalid.") and f'"{key}"' not in text]
    assert unused == []


@pytest.mark.parametrize(("language", "is_chinese"), [("zh", True), ("en", False)])
def test_problem_has_the_one_shape(language, is_chinese):
    body = problem(Refused("task_not_found", task_id=7), language, "req_1")

    assert body["code"] == "task_not_found"
    assert (body["status"], body["title"], body["request_id"]) == (404, "Not Found", "req_1")
    assert bool(CJK.search(body["detail"])) is is_chinese
    assert "7" in body["detail"]
    assert "errors" not in body
