"""What makes a conversation too large is cut: its beginning and end stay, and it says how much is left out."""

import re

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    BinaryContent,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from beray.server.agent.conversation import cutting, notes
from beray.server.agent.conversation.compaction import count_bytes, is_users, size_of
from beray.server.agent.conversation.cutting import KEPT_BYTES, MARK_BYTES

SLACK = 2 * MARK_BYTES  # the marks


def shell(number, result):
    call = ToolCallPart("shell", {"command": "ls"}, f"call_{number}")
    return [ModelResponse(parts=[call]), ModelRequest(parts=[ToolReturnPart("shell", result, f"call_{number}")])]


def said(content):
    return ModelRequest(parts=[UserPromptPart(content)])


def contents(messages):
    return [part.content for message in messages if isinstance(message, ModelRequest) for part in message.parts]


def left_out(content):
    return [int(number) for number in re.findall(r"(\d+) characters", content)]


def test_the_oldest_results_are_cut_first_and_no_more_than_is_needed():
    messages = [said("goal"), *shell(1, "a" * 10_000), *shell(2, "b" * 10_000), *shell(3, "c" * 10_000)]

    cut = cutting.cut_results(messages, 12_000)

    _, first, second, third = contents(cut.messages)
    assert cut.count == 2
    assert left_out(first) == [8000]
    assert (first[:500], first[-1500:]) == ("a" * 500, "a" * 1500)
    assert left_out(second) == [4000]
    assert third == "c" * 10_000


def test_the_latest_result_is_cut_too_if_it_must_be():
    cut = cutting.cut_results([said("goal"), *shell(1, "a" * 10_000)], 100_000)

    assert left_out(contents(cut.messages)[1]) == [8000]


def test_the_longest_of_the_users_words_are_cut_to_the_same_size():
    answer = f"{notes.ANSWERED}\n" + "d" * 9000
    asked = [
        ModelResponse(parts=[ToolCallPart("ask_user", {"question": "?"}, "call_1")]),
        ModelRequest(parts=[ToolReturnPart("ask_user", answer, "call_1")]),
    ]
    note = notes.note("x" * 20_000)
    messages = [said("a" * 12_000), said("short"), *asked, said(note)]

    cut = cutting.cut_words(messages, 11_000)

    long, short, answered, noted = contents(cut.messages)
    assert cut.count == 2
    assert (short, noted) == ("short", note)
    assert abs(len(long) - len(answered)) < 10
    assert answered.startswith(notes.ANSWERED)
    assert left_out(long)[0] + left_out(answered)[0] >= 11_000
    assert "do not fit this model's context" in long


def test_what_is_cut_again_says_how_much_is_missing_in_all():
    once = cutting.cut_words([said("é" * 20_000)], 10_000)
    twice = cutting.cut_words(once.messages, 20_000)

    (content,) = contents(twice.messages)
    assert left_out(content) == [20_000 - content.count("é")]


def test_a_result_of_pictures_gives_them_up():
    picture = BinaryContent(b"x", media_type="image/png")
    messages = [said("goal"), *shell(1, ["a.png is a picture.", picture, picture])]

    cut = cutting.cut_results(messages, 50_000)

    assert contents(cut.messages)[1] == "a.png is a picture.\n[A picture was here.]\n[A picture was here.]"


def parts_of(messages):
    return [part for message in messages for part in message.parts]


def is_result(part):
    return isinstance(part, ToolReturnPart)


@st.composite
def conversations(draw):
    lengths = st.integers(0, 20_000)
    letters = st.sampled_from(["x", "é", "字", "🙂"])
    messages = [said(draw(letters) * draw(lengths))]
    for number in range(draw(st.integers(0, 5))):
        messages += shell(number, draw(letters) * draw(lengths))
        if draw(st.booleans()):
            messages.append(said(draw(letters) * draw(lengths)))
    return messages


@given(conversations(), st.integers(-1000, 300_000))
def test_as_much_is_saved_as_is_asked_for_or_can_be(messages, excess):
    results = cutting.cut_results(messages, excess).messages
    words = cutting.cut_words(messages, excess).messages

    said_before, said_after = ([part for part in parts_of(made) if is_users(part)] for made in (messages, results))
    assert said_before == said_after
    for made, is_cut in ((results, is_result), (words, is_users)):
        assert count_bytes(made) <= count_bytes(messages)
        can_be = [max(size_of(part) - KEPT_BYTES - SLACK, 0) for part in parts_of(messages) if is_cut(part)]
        saved = count_bytes(messages) - count_bytes(made)
        assert saved >= min(excess, sum(can_be)) - SLACK * len(can_be)
