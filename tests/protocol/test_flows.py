"""The flows without a network: a driver of a few lines answers their effects from a script."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from beray.protocol import calls, flows
from beray.protocol.effects import Conditions, Emit, Flow, Read, Send, Sleep
from beray.protocol.responses import Answer
from beray.protocol.retry import RetryPolicy
from beray.protocol.sse import HEARTBEAT, RETRY_LINE, encode_event

CUT = ConnectionFailed("cut")
NEVER_SENT = ConnectionFailed("refused", was_sent=False)


@dataclass
class Stream:
    """A stream's answer: its reads, then what ends it (None: cleanly)."""

    reads: Sequence[bytes] = ()
    end: NetworkError | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    status: int = 200


@dataclass
class Driver:
    """Answers effects from `script`, one entry a request, and remembers them."""

    script: list[Answer | NetworkError | Stream]
    sent: list[Send] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    emitted: list[dict[str, Any]] = field(default_factory=list)

    def run(self, flow: Flow[Any]) -> Any:
        reads: list[bytes | NetworkError] = []
        result: Any = None
        while True:
            try:
                effect = flow.send(result)
            except StopIteration as stop:
                assert not self.script, "the flow ended before the script"
                return stop.value
            result = None
            match effect:
                case Send():
                    self.sent.append(effect)
                    result = self.script.pop(0)
                    if isinstance(result, Stream):
                        reads = [*result.reads, result.end or b""]
                        result = Answer(status=result.status, headers=result.headers)
                case Read():
                    result = reads.pop(0)
                case Sleep(seconds):
                    self.slept.append(seconds)
                case Emit(events):
                    self.emitted.extend(events)

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.emitted]

    @property
    def resumed_after(self) -> list[str | None]:
        return [send.call.headers.get("Last-Event-ID") for send in self.sent if send.is_event_stream]


def conditions(*, max_retries: int = 2, **more: Any) -> Conditions:
    return Conditions(policy=RetryPolicy(max_retries=max_retries), clock=lambda: 0.0, random=lambda: 1.0, **more)


def answer(status: int = 200, content: object = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=json.dumps(content).encode())


def frame(seq: int, type: str = "text.delta") -> bytes:
    return encode_event(seq, type, json.dumps({"seq": seq, "type": type}).encode())


def frames(first: int, last: int) -> bytes:
    return b"".join(frame(seq) for seq in range(first, last + 1))


# One call


def test_a_call_is_repeated_until_it_succeeds() -> None:
    driver = Driver([CUT, answer(503, Retry_After="3"), answer(200, {"id": 1})])

    result = driver.run(flows.request(calls.get_task(1), conditions()))

    assert result.body == b'{"id": 1}'
    assert driver.slept == [0.5, pytest.approx(3.05)]


def test_when_no_attempt_is_left_the_last_error_is_raised() -> None:
    driver = Driver([CUT, CUT, answer(503)])

    with pytest.raises(APIError) as error:
        driver.run(flows.request(calls.get_task(1), conditions()))

    assert error.value.status_code == 503


def test_an_answer_that_will_not_change_is_not_asked_for_again() -> None:
    driver = Driver([answer(404, {"detail": "no"})])

    with pytest.raises(NotFoundError):
        driver.run(flows.request(calls.get_task(1), conditions()))

    assert driver.slept == []


def test_an_accepted_status_is_an_answer() -> None:
    driver = Driver([answer(503, {"engine": "starting"})])

    assert driver.run(flows.request(calls.get_ready(), conditions())).status == 503


def test_a_creation_is_repeated_after_a_cut_only_where_the_server_honours_keys() -> None:
    shared = conditions()
    call = calls.create_task("g", tools=None, idempotency_key="k")

    with pytest.raises(ConnectionFailed):
        Driver([CUT]).run(flows.request(call, shared))
    Driver([answer(200, [], Idempotency_Supported="true")]).run(flows.request(calls.list_tasks(), shared))

    assert Driver([CUT, answer(201)]).run(flows.request(call, shared)).status == 201


def test_an_error_answer_too_tells_that_keys_are_honoured() -> None:
    driver = Driver([answer(429, Idempotency_Supported="true"), CUT, answer(201)])

    call = calls.create_task("g", tools=None, idempotency_key="k")

    assert driver.run(flows.request(call, conditions())).status == 201


def test_a_repeated_deletion_that_finds_nothing_has_worked() -> None:
    """The first attempt did it, its answer was lost; or a 503 said that the rest goes on in the background."""
    for first in (CUT, answer(503)):
        result = Driver([first, answer(404)]).run(flows.request(calls.delete_task(1), conditions(language="en")))

        assert json.loads(result.body) == {"message": "Deleted."}


def test_a_first_deletion_that_finds_nothing_has_not_worked() -> None:
    with pytest.raises(NotFoundError):
        Driver([answer(404)]).run(flows.request(calls.delete_task(1), conditions()))


# Streams


def test_a_stream_ends_when_its_last_event_says_so() -> None:
    driver = Driver([Stream([RETRY_LINE + frames(1, 3), frame(4, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4]


def test_a_cut_stream_is_resumed_after_the_last_event() -> None:
    driver = Driver(
        [
            Stream([RETRY_LINE, frames(1, 2), frame(3)[:-1]], CUT),
            Stream([RETRY_LINE, frames(3, 4) + frame(5, "task.finished")]),
        ]
    )

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4, 5]
    assert driver.resumed_after == [None, "2"]
    assert driver.slept == [1.0]


def test_a_replay_of_seen_events_is_dropped() -> None:
    driver = Driver([Stream([frames(1, 3)], CUT), Stream([frames(1, 4), frame(5, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4, 5]


def test_a_further_run_does_not_end_with_the_first() -> None:
    """A task.finished met in the middle of a replay ends nothing."""
    driver = Driver([Stream([frame(1), frame(2, "task.finished"), frame(3), frame(4, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3, 4]


def test_a_clean_end_before_the_tasks_end_is_resumed() -> None:
    """A server that shuts down, or a proxy, ends a stream cleanly too."""
    driver = Driver([Stream([frames(1, 2)]), Stream([frame(3, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2, 3]


def test_resuming_at_the_end_of_an_ended_task_ends_at_once() -> None:
    driver = Driver([Stream([RETRY_LINE]), answer(200, {"status": "completed", "last_seq": 9})])

    driver.run(flows.stream(7, conditions(), after=9))

    assert driver.emitted == []
    assert driver.resumed_after == ["9"]


def test_a_stream_that_brings_nothing_while_the_task_runs_is_resumed() -> None:
    running = answer(200, {"status": "running", "last_seq": 9})
    driver = Driver([Stream([RETRY_LINE]), running, Stream([frame(10, "task.finished")])])

    driver.run(flows.stream(7, conditions(), after=9))

    assert driver.seqs == [10]


def test_a_stream_that_ends_just_before_the_last_event_was_shown_is_resumed() -> None:
    ended = answer(200, {"status": "completed", "last_seq": 10})
    driver = Driver([Stream([]), ended, Stream([frame(10, "task.finished")])])

    driver.run(flows.stream(7, conditions(), after=9))

    assert driver.seqs == [10]


def test_patience_ends_after_ten_connections_without_a_sign_of_life() -> None:
    driver = Driver([Stream([frames(1, 2)], CUT), *[NEVER_SENT] * 10])

    with pytest.raises(ConnectionFailed, match="refused"):
        driver.run(flows.stream(7, conditions()))

    assert driver.slept == [1.0, 2.0, 4.0, 8.0, *[10.0] * 6]


@pytest.mark.parametrize("life", [frame(3), HEARTBEAT])
def test_a_sign_of_life_renews_the_patience(life: bytes) -> None:
    driver = Driver(
        [
            Stream([frames(1, 2)], CUT),
            *[NEVER_SENT] * 9,
            Stream([life], CUT),
            *[NEVER_SENT] * 9,
            Stream([frame(4, "task.finished")]),
        ]
    )

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs[-1] == 4


def test_the_servers_retry_sets_the_first_wait() -> None:
    driver = Driver([Stream([b"retry: 250\n\n", frame(1)], CUT), NEVER_SENT, Stream([frame(2, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.slept == [0.25, 0.5]


def test_an_absurd_retry_is_capped() -> None:
    driver = Driver([Stream([b"retry: 999999999\n\n", frame(1)], CUT), Stream([frame(2, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.slept == [10.0]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (404, NotFoundError), (422, APIError), (500, APIError)]
)
def test_a_refusal_ends_the_stream(status: int, kind: type[APIError]) -> None:
    first = Driver([answer(status)])
    with pytest.raises(kind):
        first.run(flows.stream(7, conditions()))

    later = Driver([Stream([frame(1)], CUT), answer(status)])
    with pytest.raises(kind):
        later.run(flows.stream(7, conditions()))
    assert later.seqs == [1]


@pytest.mark.parametrize("passing", [answer(503, Retry_After="2"), answer(502), answer(429), RequestTimeout("late")])
def test_a_passing_refusal_is_waited_out(passing: Answer | NetworkError) -> None:
    driver = Driver([Stream([frame(1)], CUT), passing, Stream([frame(2, "task.finished")])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1, 2]


def test_a_certificate_that_is_no_longer_accepted_ends_the_stream() -> None:
    driver = Driver([Stream([frame(1)], CUT), TLSError("no", was_sent=False)])

    with pytest.raises(TLSError):
        driver.run(flows.stream(7, conditions()))


def test_without_retries_a_cut_is_an_error() -> None:
    driver = Driver([Stream([frame(1)], CUT)])

    with pytest.raises(ConnectionFailed):
        driver.run(flows.stream(7, conditions(max_retries=0)))


def test_an_answer_that_is_no_event_stream_is_refused() -> None:
    driver = Driver([Stream([b"<html>"], headers={"Content-Type": "text/html"})])

    with pytest.raises(ProtocolError, match="text/html"):
        driver.run(flows.stream(7, conditions()))


def test_the_kind_of_a_stream_is_compared_without_case_and_parameters() -> None:
    headers = {"Content-Type": "Text/Event-Stream; charset=utf-8"}
    driver = Driver([Stream([frame(1, "task.finished")], headers=headers)])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [1]


# Another server's streams


def test_events_without_ids_are_passed_on_and_a_clean_end_is_believed() -> None:
    driver = Driver([Stream([b'data: {"status": "running"}\n\n', b'data: {"status": "done"}\n\n'])])

    driver.run(flows.stream(7, conditions()))

    assert driver.emitted == [{"status": "running"}, {"status": "done"}]


def test_events_without_ids_can_not_be_resumed() -> None:
    driver = Driver([Stream([b'data: {"seq": 1}\n\n'], CUT)])

    with pytest.raises(ConnectionFailed):
        driver.run(flows.stream(7, conditions()))

    assert driver.emitted == [{"seq": 1}]


def test_events_with_other_ids_are_passed_on_unfiltered() -> None:
    driver = Driver([Stream([b'id: x1\ndata: {"seq": 5}\n\nid: x1\ndata: {"seq": 5}\n\n'])])

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == [5, 5]


def test_an_empty_stream_of_another_server_is_believed() -> None:
    driver = Driver([Stream([]), answer(200, {"status": "SUCCEEDED"})])

    driver.run(flows.stream(7, conditions()))

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

    driver.run(flows.stream(7, conditions()))

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

    driver.run(flows.stream(7, conditions()))

    assert driver.seqs == list(range(1, total + 1))
