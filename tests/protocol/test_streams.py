"""A task's stream as a flow, without a network: a scripted driver answers its effects."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConnectionFailed,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    TLSError,
)
from beray.protocol import streams
from beray.protocol.responses import Answer
from beray.protocol.sse import HEARTBEAT, RETRY_LINE
from tests.support.scripted_driver import CUT, NEVER_SENT, Driver, Stream, answer, conditions, frame, frames


def test_a_stream_ends_when_its_last_event_says_so() -> None:
    driver = Driver([Stream([RETRY_LINE + frames(1, 3), frame(4, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4]


def test_a_cut_stream_is_resumed_after_the_last_event() -> None:
    driver = Driver(
        [
            Stream([RETRY_LINE, frames(1, 2), frame(3)[:-1]], CUT),
            Stream([RETRY_LINE, frames(3, 4) + frame(5, "task.finished")]),
        ]
    )

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4, 5]
    assert driver.resumed_after == [None, "2"]
    assert driver.slept == [1.0]


def test_a_replay_of_seen_events_is_dropped() -> None:
    driver = Driver([Stream([frames(1, 3)], CUT), Stream([frames(1, 4), frame(5, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4, 5]


def test_a_further_run_does_not_end_with_the_first() -> None:
    """A task.finished met in the middle of a replay ends nothing."""
    driver = Driver([Stream([frame(1), frame(2, "task.finished"), frame(3), frame(4, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4]


def test_a_clean_end_before_the_tasks_end_is_resumed() -> None:
    """A server that shuts down, or a proxy, ends a stream cleanly too."""
    driver = Driver([Stream([frames(1, 2)]), Stream([frame(3, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3]


def test_resuming_at_the_end_of_an_ended_task_ends_at_once() -> None:
    driver = Driver([Stream([RETRY_LINE]), answer(200, {"status": "completed", "last_seq": 9})])

    driver.run(streams.stream(7, conditions(), after=9))

    assert driver.emitted == []
    assert driver.resumed_after == ["9"]


def test_a_stream_that_brings_nothing_while_the_task_runs_is_resumed() -> None:
    running = answer(200, {"status": "running", "last_seq": 9})
    driver = Driver([Stream([RETRY_LINE]), running, Stream([frame(10, "task.finished")])])

    driver.run(streams.stream(7, conditions(), after=9))

    assert driver.seqs == [10]


def test_a_stream_that_ends_just_before_the_last_event_was_shown_is_resumed() -> None:
    ended = answer(200, {"status": "completed", "last_seq": 10})
    driver = Driver([Stream([]), ended, Stream([frame(10, "task.finished")])])

    driver.run(streams.stream(7, conditions(), after=9))

    assert driver.seqs == [10]


def test_patience_ends_after_ten_connections_without_a_sign_of_life() -> None:
    driver = Driver([Stream([frames(1, 2)], CUT), *[NEVER_SENT] * 10])

    with pytest.raises(ConnectionFailed, match="refused"):
        driver.run(streams.stream(7, conditions()))

    assert driver.slept == [1.0, 2.0, 4.0, 8.0, *[10.0] * 6]


@pytest.mark.parametrize(("life", "last"), [(frame(3), 4), (HEARTBEAT, 3)])
def test_a_sign_of_life_renews_the_patience(life: bytes, last: int) -> None:
    driver = Driver(
        [
            Stream([frames(1, 2)], CUT),
            *[NEVER_SENT] * 9,
            Stream([life], CUT),
            *[NEVER_SENT] * 9,
            Stream([frame(last, "task.finished")]),
        ]
    )

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs[-1] == last


def test_the_servers_retry_sets_the_first_wait() -> None:
    driver = Driver([Stream([b"retry: 250\n\n", frame(1)], CUT), NEVER_SENT, Stream([frame(2, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.slept == [0.25, 0.5]


def test_an_absurd_retry_is_capped() -> None:
    driver = Driver([Stream([b"retry: 999999999\n\n", frame(1)], CUT), Stream([frame(2, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.slept == [10.0]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (404, NotFoundError), (422, APIError), (500, APIError)]
)
def test_a_refusal_ends_the_stream(status: int, kind: type[APIError]) -> None:
    first = Driver([answer(status)])
    with pytest.raises(kind):
        first.run(streams.stream(7, conditions()))

    later = Driver([Stream([frame(1)], CUT), answer(status)])
    with pytest.raises(kind):
        later.run(streams.stream(7, conditions()))
    assert later.seqs == [1]


@pytest.mark.parametrize("passing", [answer(503, Retry_After="2"), answer(502), answer(429), RequestTimeout("late")])
def test_a_passing_refusal_is_waited_out(passing: Answer | NetworkError) -> None:
    driver = Driver([Stream([frame(1)], CUT), passing, Stream([frame(2, "task.finished")])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1, 2]


def test_a_certificate_that_is_no_longer_accepted_ends_the_stream() -> None:
    driver = Driver([Stream([frame(1)], CUT), TLSError("no", was_sent=False)])

    with pytest.raises(TLSError):
        driver.run(streams.stream(7, conditions()))


def test_without_retries_a_cut_is_an_error() -> None:
    driver = Driver([Stream([frame(1)], CUT)])

    with pytest.raises(ConnectionFailed):
        driver.run(streams.stream(7, conditions(max_retries=0)))


def test_an_answer_that_is_no_event_stream_is_refused() -> None:
    driver = Driver([Stream([b"<html>"], headers={"Content-Type": "text/html"})])

    with pytest.raises(ProtocolError, match="text/html"):
        driver.run(streams.stream(7, conditions()))


def test_the_kind_of_a_stream_is_compared_without_case_and_parameters() -> None:
    headers = {"Content-Type": "Text/Event-Stream; charset=utf-8"}
    driver = Driver([Stream([frame(1, "task.finished")], headers=headers)])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [1]


# Another server's streams


def test_events_without_ids_are_passed_on_and_a_clean_end_is_believed() -> None:
    driver = Driver([Stream([b'data: {"status": "running"}\n\n', b'data: {"status": "done"}\n\n'])])

    driver.run(streams.stream(7, conditions()))

    assert driver.emitted == [{"status": "running"}, {"status": "done"}]


def test_events_without_ids_can_not_be_resumed() -> None:
    driver = Driver([Stream([b'data: {"seq": 1}\n\n'], CUT)])

    with pytest.raises(ConnectionFailed):
        driver.run(streams.stream(7, conditions()))

    assert driver.emitted == [{"seq": 1}]


def test_events_with_other_ids_are_passed_on_unfiltered() -> None:
    driver = Driver([Stream([b'id: x1\ndata: {"seq": 5}\n\nid: x1\ndata: {"seq": 5}\n\n'])])

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == [5, 5]


def test_an_empty_stream_of_another_server_is_believed() -> None:
    driver = Driver([Stream([]), answer(200, {"status": "SUCCEEDED"})])

    driver.run(streams.stream(7, conditions()))

    assert driver.emitted == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: [DONE]\n\n", [{"type": "message", "data": "[DONE]"}]),
        (b"event: ping\ndata: 5\n\n", [{"type": "ping", "data": 5}]),
        (b"data: [1]\n\n", [{"type": "message", "data": [1]}]),
        (b"data: {broken\n\n", [{"type": "message", "data": "{broken"}]),
        (b"event: ping\ndata:\n\n", []),
        (b"data: {}\n\n", [{}]),
    ],
)
def test_data_that_is_no_object_is_wrapped(data: bytes, expected: list[object]) -> None:
    driver = Driver([Stream([data + b'data: {"end": true}\n\n'])])

    driver.run(streams.stream(7, conditions()))

    assert driver.emitted[:-1] == expected


# Whatever happens on the way


@given(
    total=st.integers(min_value=1, max_value=12),
    connections=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 30), st.booleans()), max_size=8),
)
def test_no_event_is_lost_or_repeated_whatever_is_cut(total: int, connections: list[tuple[int, int, bool]]) -> None:
    """Each connection is a server that honours Last-Event-ID, cut after some bytes, read in pieces of some size."""
    log = [*(frame(seq) for seq in range(1, total)), frame(total, "task.finished")]
    plan = iter(connections)
    driver = Driver([])

    def serve(after: int) -> Stream:
        data = RETRY_LINE + HEARTBEAT + b"".join(log[after:])
        length, step, is_clean = next(plan, (len(data), 10, True))
        reads = [data[at : min(at + step, length)] for at in range(0, min(length, len(data)), step)]
        return Stream(reads, None if is_clean or length >= len(data) else CUT)

    class Served(list[Any]):
        def pop(self, index: Any = 0) -> Any:
            last = driver.sent[-1]
            if not last.is_event_stream:
                return answer(200, {"status": "completed", "last_seq": total})
            return serve(int(last.call.headers.get("Last-Event-ID", "0")))

    driver.script = Served()

    driver.run(streams.stream(7, conditions()))

    assert driver.seqs == list(range(1, total + 1))
