"""Streams: each event once, in order, through cuts; typed errors; no connection left behind."""

import json

import pytest

from beray.client import BeRayClient
from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConnectionFailed,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
)
from beray.protocol.sse import HEARTBEAT, RETRY_LINE, encode_event
from tests.support.loopback import drop, events, reply


def frame(seq: int, kind: str = "text.delta", **fields: object) -> bytes:
    body = {"v": 1, "seq": seq, "task_id": 3, "type": kind, **fields}
    return encode_event(seq, kind, json.dumps(body, ensure_ascii=False).encode())


def seqs(stream) -> list[int]:
    return [event["seq"] for event in stream]


END = frame(4, "task.finished", status="completed")
RUNNING = reply(200, {"id": 3, "status": "running", "last_seq": 2})


def test_events_come_as_dicts_until_the_end(peer, peer_client):
    peer.script(events([RETRY_LINE, frame(1, text="行\u2028一"), HEARTBEAT, frame(2), frame(3), END]))

    received = list(peer_client.stream_task_updates(3))

    assert [event["seq"] for event in received] == [1, 2, 3, 4]
    assert received[0]["text"] == "行\u2028一"
    assert peer.received[0].path == "/api/v1/tasks/3/stream"
    assert "last-event-id" not in peer.received[0].headers


@pytest.mark.parametrize("size", [1, 3, 7])
def test_chunks_may_be_cut_anywhere(peer, peer_client, size):
    data = frame(1, text="é中😀") + frame(2) + frame(3) + END
    peer.script(events([data[at : at + size] for at in range(0, len(data), size)]))

    assert seqs(peer_client.stream_task_updates(3)) == [1, 2, 3, 4]


def test_a_cut_stream_resumes_after_the_last_event(peer, peer_client, waits):
    peer.script(
        events([frame(1), frame(2), b"id: 3\nevent: text.delta\ndata: {"], end="cut"),
        drop,
        reply(503, {"detail": "restarting"}),
        events([frame(2), frame(3), END]),
    )

    assert seqs(peer_client.stream_task_updates(3)) == [1, 2, 3, 4]

    assert [received.headers.get("last-event-id") for received in peer.received] == [None, "2", "2", "2"]
    assert len(waits) == 3


def test_a_clean_end_before_the_tasks_end_resumes(peer, peer_client):
    """A server that shuts down ends its streams cleanly; that is not the task's end."""
    peer.script(events([frame(1), frame(2)]), events([frame(3), END]))

    assert seqs(peer_client.stream_task_updates(3)) == [1, 2, 3, 4]


def test_an_empty_stream_of_a_running_task_resumes_and_of_an_ended_one_ends(peer, peer_client):
    ended = reply(200, {"id": 3, "status": "completed", "last_seq": 4})
    peer.script(events([]), RUNNING, events([frame(3)], end="cut"), events([END]), events([]), ended)

    assert seqs(peer_client.stream_task_updates(3, after=2)) == [3, 4]
    assert seqs(peer_client.stream_task_updates(3, after=4)) == []


def test_after_starts_behind_an_event(peer, peer_client):
    peer.script(events([frame(3), END]))

    assert seqs(peer_client.stream_task_updates(3, after=2)) == [3, 4]
    assert peer.received[0].headers["last-event-id"] == "2"


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (404, NotFoundError), (500, APIError)])
def test_a_refused_stream_raises_before_its_first_event(peer, peer_client, status, kind):
    peer.always(reply(status, {"detail": "no"}))

    with pytest.raises(kind):
        next(peer_client.stream_task_updates(3))


def test_a_task_deleted_while_it_is_watched_raises(peer, peer_client):
    peer.script(events([frame(1)], end="cut"), reply(404, {"detail": "gone"}))
    stream = peer_client.stream_task_updates(3)

    assert next(stream)["seq"] == 1
    with pytest.raises(NotFoundError):
        next(stream)


def test_silence_is_a_cut(peer, waits):
    peer.script(events([frame(1), frame(2)], end="silent"), events([frame(3), END]))
    with BeRayClient(peer.url, token="t", stream_timeout=0.2) as client:
        assert seqs(client.stream_task_updates(3)) == [1, 2, 3, 4]


def test_endless_silence_ends_in_a_timeout(peer, waits):
    peer.always(events([], end="silent"))
    with (
        BeRayClient(peer.url, token="t", stream_timeout=0.05) as client,
        pytest.raises(RequestTimeout, match="heartbeat"),
    ):
        next(client.stream_task_updates(3))


def test_reconnecting_gives_up(peer, peer_client, waits):
    peer.script(events([frame(1)], end="cut"))
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        list(peer_client.stream_task_updates(3))

    assert 5 <= len(waits) <= 20


def test_breaking_out_closes_the_connection(peer, peer_client):
    peer.script(events([frame(1), frame(2)], end="silent"))

    for event in peer_client.stream_task_updates(3):
        assert event["seq"] == 1
        break

    assert peer.client_left.wait(5)


def test_a_server_without_ids_is_passed_on_and_its_end_believed(peer, peer_client):
    peer.script(events([b'data: {"status": "running"}\n\n', b"data: plain words\n\n", b"event: x\ndata: [1]\n\n"]))

    assert list(peer_client.stream_task_updates(3)) == [
        {"status": "running"},
        {"type": "message", "data": "plain words"},
        {"type": "x", "data": [1]},
    ]


def test_a_cut_without_ids_is_an_error_since_resuming_might_repeat(peer, peer_client):
    peer.script(events([b'data: {"n": 1}\n\n'], end="cut"))
    stream = peer_client.stream_task_updates(3)

    assert next(stream) == {"n": 1}
    with pytest.raises(ConnectionFailed):
        next(stream)


def test_an_answer_that_is_no_event_stream_is_told(peer, peer_client):
    peer.script(reply(200, {"not": "a stream"}))

    with pytest.raises(ProtocolError, match="event-stream"):
        next(peer_client.stream_task_updates(3))
