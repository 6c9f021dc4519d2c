"""A call's arguments in events: small, whatever the model sends."""

import json

import orjson
import pytest

from beray.server.agent.shown_args import MOST_CHARACTERS, MOST_TEXT_CHARACTERS, shown_args


@pytest.mark.parametrize(
    "args",
    [
        {"path": "a.txt", "lines": [1, 2.5, None, True], "how": {"deep": [{"er": "x"}]}},
        {"text": "x" * MOST_TEXT_CHARACTERS},
        {},
    ],
)
def test_what_is_small_is_shown_as_it_is(args):
    assert shown_args(args) == args


def deep(levels):
    return {"in": deep(levels - 1)} if levels else "x" * 5000


@pytest.mark.parametrize(
    "args",
    [
        {"text": "x" * 1_000_000},
        {"edits": [{"new": "x" * 5000} for _ in range(1000)]},
        {"rows": [[]] * 100_000},
        {"map": {str(number): number for number in range(100_000)}},
        {"x" * 100_000: 1, "y" * 100_000: 2},
        {"deep": deep(200)},
    ],
    ids=["a long text", "texts in a list", "empty lists", "a large object", "long names", "a deep one"],
)
def test_what_is_large_is_cut(args):
    assert len(json.dumps(shown_args(args))) < 2 * MOST_CHARACTERS


def test_what_is_left_out_is_told():
    shown = shown_args({"edits": [{"new": "x" * 5000}] * 7, "path": "a.txt"})

    assert shown["edits"][0]["new"].endswith("… [1000 more characters]")
    assert shown["edits"][-1] == "[3 more]"
    assert shown["…"] == "[1 more]"


def test_a_number_that_events_cannot_hold_is_a_text():
    assert orjson.loads(orjson.dumps(shown_args({"n": 10**30, "m": -1}))) == {"n": str(10**30), "m": -1}
