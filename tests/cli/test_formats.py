"""How figures look."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.cli import formats


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (83, "83 B"), (999, "999 B"), (1234, "1.2 kB"), (5_000_000, "5.0 MB"), (10**16, "10000.0 TB")],
)
def test_size(size: int, shown: str) -> None:
    assert formats.size(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (6.21, "6.2 s"), (65, "1 min 05 s"), (3725, "1 h 02 min")],
)
def test_seconds(seconds: float, shown: str) -> None:
    assert formats.seconds(seconds) == shown


def test_milliseconds_become_seconds_from_one_on() -> None:
    assert formats.milliseconds(41) == "41 ms"
    assert formats.milliseconds(1500) == "1.5 s"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("500ms", 0.5), (" 2M ", 120)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert formats.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["-1", "soon", "5 m x", "1e3", "٣"])
def test_other_words_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        formats.parse_seconds(text)


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [
        ("2026-11-24T08:00:00.000Z", "2026-11-24T08:00:06.250Z", 6.25),
        ("2026-11-24T08:00:06.000Z", "2026-11-24T08:00:00.000Z", 0.0),
        (None, "2026-11-24T08:00:00.000Z", None),
        ("yesterday", "2026-11-24T08:00:00.000Z", None),
        ("2026-11-24T08:00:00", "2026-11-24T08:00:00Z", None),
    ],
)
def test_what_can_not_be_known_is_none(start: str | None, end: str | None, seconds: float | None) -> None:
    assert formats.seconds_between(start, end) == seconds


@given(st.text())
def test_json_lines_are_json_and_nothing_a_terminal_obeys(text: str) -> None:
    line = formats.json_line({"text": text})

    assert json.loads(line) == {"text": text}
    assert not any(ord(char) < 32 or 0x7F <= ord(char) <= 0x9F for char in line)


def test_json_keeps_chinese_readable() -> None:
    assert formats.json_line({"goal": "写诗"}) == '{"goal":"写诗"}'
