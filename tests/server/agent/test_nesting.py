import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.agent.nesting import answered_id, is_too_deep, is_value_too_deep

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab"\\[]{}:,é'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a"\\[{'), inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(min_value=0, max_value=6), st.booleans())
def test_depth_is_that_of_the_value(value, most, is_ascii):
    is_deep = depth_of(value) > most

    assert is_value_too_deep(value, most) == is_deep
    assert is_too_deep(json.dumps(value, ensure_ascii=is_ascii), most) == is_deep


@given(VALUES, st.integers(min_value=0, max_value=6), st.data())
def test_a_part_of_a_text_is_no_deeper_than_the_whole(value, most, data):
    whole = json.dumps(value)
    part = whole[: data.draw(st.integers(min_value=0, max_value=len(whole)))]

    assert not is_too_deep(part, most) or depth_of(value) > most


def test_no_depth_is_too_much_to_be_told():
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]

    assert is_value_too_deep(value)
    assert is_too_deep("[" * 100_000)
    assert not is_too_deep("[]" * 100_000)
    while value:  # taken apart by hand: to forget it at once would take as many calls
        value = value.pop()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ('{"jsonrpc": "2.0", "id": 7, "result": {"x": "\\ud800"}}', 7),
        ('{"result":{"id":1,"jsonrpc":"2.0"},"jsonrpc":"2.0","id":"a-1"}', "a-1"),
        ('{"jsonrpc":"2.0","id":7,"error":' + "[" * 100_000, 7),
        ('{"jsonrpc":"2.0","id":7,"result":"no end', 7),
        ('{"jsonrpc":"2.0","id":7,"method":"ping","params":"\\ud800"}', None),
        ('{"jsonrpc":"2.0","result":{"id":7}', None),
        ('{"id":7,"result":"a line of a log"', None),
        ('{"jsonrpc":"2.0","id":7.5,"result":[', None),
        ('{"jsonrpc":"2.0"} {"id":7,"result":1}', None),
        ('[{"jsonrpc":"2.0","id":7,"result":1}', None),
        ("Listening on port 1234", None),
        ("", None),
    ],
)
def test_the_request_that_an_unreadable_answer_belongs_to(line, asked):
    assert answered_id(line) == asked
