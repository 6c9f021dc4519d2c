"""The catalogue: complete in both languages, and nothing in it that nobody says."""

import re
import string
from pathlib import Path

import pytest

import beray.cli
from beray.cli.language import language_of
from beray.cli.messages import MESSAGES

SOURCES = [path.read_text() for path in Path(beray.cli.__file__).parent.glob("*.py") if path.name != "messages.py"]
QUOTED = {key for source in SOURCES for key in re.findall(r"[\"']([a-z_]+(?:\.[a-z_]+)*)[\"']", source)}
SAID = {key for source in SOURCES for key in re.findall(r"say\(\s*[\"']([a-z_.]+)[\"']", source)}
FAMILIES = {
    "audit.": "admin",
    "end.": "screen",
    "ps.": "tasks",
    "show.": "tasks",
    "doctor.": "doctor",
    "tokens.": "tokens",
    "users.": "admin",
}
"""Keys made at run time: `say(f"end.{status}")`."""


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", MESSAGES)
def test_sentence_in_both_languages_names_the_same_fields(key: str) -> None:
    chinese, english = MESSAGES[key]

    assert chinese.strip()
    assert english.strip()
    assert fields(chinese) == fields(english)


def test_every_sentence_said_is_in_the_catalogue() -> None:
    assert SAID - MESSAGES.keys() == set()


def test_every_sentence_of_the_catalogue_is_said() -> None:
    unsaid = {key for key in MESSAGES if key not in QUOTED and not key.startswith(tuple(FAMILIES))}

    assert unsaid == set()


def test_chinese_sentences_are_chinese() -> None:
    without = [key for key, (chinese, _) in MESSAGES.items() if not re.search(r"[\u4e00-\u9fff]", chinese)]

    assert without == ["note.question"]


def test_doctor_has_a_name_for_every_finding() -> None:
    source = Path(beray.cli.__file__).with_name("doctor.py").read_text()
    names = set(re.findall(r'(?:Finding|_try)\(\s*"([a-z]+)"', source))

    assert names
    assert {f"doctor.{name}" for name in names} <= MESSAGES.keys()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LC_ALL": "zh_TW.UTF-8", "LC_MESSAGES": "en_US.UTF-8", "LANG": "C"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        ({"BERAY_LANGUAGE": "en", "LC_ALL": "zh_CN.UTF-8"}, "en"),
        ({"BERAY_LANGUAGE": "zh", "LC_ALL": "en_US.UTF-8"}, "zh"),
    ],
)
def test_language_follows_the_locale_and_our_own_variable_wins(environ: dict[str, str], expected: str) -> None:
    assert language_of(environ) == expected
