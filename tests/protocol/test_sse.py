import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beray.exceptions import EventTooLarge
from beray.protocol.sse import HEARTBEAT, RETRY_LINE, EventStreamDecoder, ServerSentEvent, encode_event

STREAM_PIECES = [
    b"data", b"id", b"event", b"retry", b":", b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"7", b"x",
    b"\xe4", "é".encode(), "中\u2028".encode(), b"\xff", b"\xef\xbb\xbf", b"data: {}\n\n", b"id: 3\n", b"event: a\n",
    b"id: 8\nevent: a.b\ndata: {}\n\n", b"id: 8\0\nevent: a.b\ndata: {}\n\n",
    b"id: \xff\nevent: \ndata:  x\n\n", b"id: 9\nevent: a.b\ndata: {}\r\n\r\n",
]  # fmt: skip
streams = st.lists(st.sampled_from(STREAM_PIECES), max_size=40).map(b"".join)
json_objects = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=4)


def decode(data: bytes) -> list[ServerSentEvent]:
    return EventStreamDecoder().feed(data)


def decode_cut(data: bytes, cuts: list[int]) -> tuple[list[ServerSentEvent], EventStreamDecoder]:
    decoder = EventStreamDecoder()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    events = [event for start, end in itertools.pairwise(edges) for event in decoder.feed(data[start:end])]
    return events, decoder


@given(streams, st.lists(st.integers(min_value=0), max_size=8))
@example(b"data: a\r\n\r\n", [8])
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 2])
@example("data: 中\n\n".encode(), [7, 8])
def test_a_stream_cut_anywhere_decodes_the_same(data: bytes, cuts: list[int]) -> None:
    whole = EventStreamDecoder()
    expected = whole.feed(data)

    events, decoder = decode_cut(data, cuts)

    assert events == expected
    assert (decoder.last_event_id, decoder.retry_ms, decoder.comments) == (
        whole.last_event_id,
        whole.retry_ms,
        whole.comments,
    )


@given(streams)
def test_whole_frames_decode_as_byte_by_byte(data: bytes) -> None:
    """Whole frames have a faster way of their own; single bytes never take it."""
    decoder = EventStreamDecoder()

    events = [event for at in range(len(data)) for event in decoder.feed(data[at : at + 1])]

    assert EventStreamDecoder().feed(data) == events


@given(streams, st.sampled_from([b"\r", b"\r\n"]))
def test_every_kind_of_line_end_decodes_the_same(data: bytes, line_end: bytes) -> None:
    with_lf = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    assert decode(with_lf.replace(b"\n", line_end)) == decode(with_lf)


@given(st.lists(json_objects, max_size=5), st.lists(st.integers(min_value=0), max_size=5))
def test_what_the_server_encodes_the_client_decodes(bodies: list[dict[str, object]], cuts: list[int]) -> None:
    frames = [
        encode_event(seq, "text.delta", json.dumps(body, ensure_ascii=False).encode())
        for seq, body in enumerate(bodies, start=1)
    ]

    events, decoder = decode_cut(RETRY_LINE + HEARTBEAT + b"".join(frames), cuts)

    assert [json.loads(event.data) for event in events] == bodies
    assert [event.id for event in events] == [str(seq) for seq in range(1, len(bodies) + 1)]
    assert {event.type for event in events} <= {"text.delta"}
    assert (decoder.retry_ms, decoder.comments) == (1000, 1)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"data:a\n\n", [("message", "a", "")]),
        (b"data:  a\n\n", [("message", " a", "")]),
        (b"data: a\ndata: b\n\n", [("message", "a\nb", "")]),
        (b"data\n\n", [("message", "", "")]),
        (b"data\ndata\n\n", [("message", "\n", "")]),
        (b"event: add\ndata: 1\n\ndata: 2\n\n", [("add", "1", ""), ("message", "2", "")]),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "")]),
        (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
        (b": note\ndata: a\n\n", [("message", "a", "")]),
        (b"unknown: x\ndata: a\nDATA: b\n\n", [("message", "a", "")]),
        (b"event: only\n\n", []),
        (b"data: cut", []),
        (b"data: cut\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xff\n\n", [("message", "\ufffd", "")]),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), [("message", "a\u2028b\u0085c\x0bd", "")]),
    ],
)
def test_the_standards_rules(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    assert [(event.type, event.data, event.id) for event in decode(stream)] == expected


def test_the_id_of_a_cut_event_does_not_move_the_cursor() -> None:
    decoder = EventStreamDecoder()

    decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")

    assert decoder.last_event_id == "1"


def test_an_id_without_data_moves_the_cursor() -> None:
    decoder = EventStreamDecoder()

    assert decoder.feed(b"id: 5\n\n") == []
    assert decoder.last_event_id == "5"


def test_a_resumed_stream_keeps_its_cursor_until_an_event_moves_it() -> None:
    decoder = EventStreamDecoder(last_event_id="8")

    decoder.feed(RETRY_LINE)

    assert decoder.last_event_id == "8"


@pytest.mark.parametrize(
    ("line", "retry_ms"),
    [
        (b"retry: 1000", 1000),
        (b"retry: 0", 0),
        (b"retry: 1.5", None),
        (b"retry: -1", None),
        (b"retry:", None),
        (b"retry: " + b"9" * 5000, None),
        ("retry: ٣".encode(), None),
    ],
)
def test_only_plain_digits_are_a_retry(line: bytes, retry_ms: int | None) -> None:
    decoder = EventStreamDecoder()

    decoder.feed(line + b"\n")

    assert decoder.retry_ms == retry_ms


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 100, b"data: 45678901234567890\n" * 6, b":" + b"x" * 100, b"data:\n" * 100],
    ids=["line", "lines", "comment", "empty lines"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_event_above_the_bound_is_refused(stream: bytes, step: int) -> None:
    decoder = EventStreamDecoder(max_event_bytes=99)

    def feed_all() -> None:
        for start in range(0, len(stream), step):
            decoder.feed(stream[start : start + step])

    with pytest.raises(EventTooLarge):
        feed_all()


def test_many_small_events_are_not_one_large_event() -> None:
    decoder = EventStreamDecoder(max_event_bytes=99)

    assert len(decoder.feed(b"data: 0123456789\n\n" * 50)) == 50


@pytest.mark.parametrize(("type", "body"), [("a", b"{\n}"), ("a", b"{}\r"), ("a\nid: 9", b"{}"), ("a\r", b"{}")])
def test_a_line_break_in_a_field_is_refused(type: str, body: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_event(1, type, body)
