"""Streams: each event once, in order, through cuts; typed errors; no connection left behind."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConnectionFailed,
    EventTooLarge,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
)
from beray.protocol.sse import HEARTBEAT, RETRY_LINE, encode_event
from tests.support.loopback import Exchange, LoopbackServer, drop, events, reply


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


def test_what_came_before_a_cut_counts_though_its_http_chunk_is_not_whole(
    peer: LoopbackServer, peer_client: BeRayClient
) -> None:
    """A server sends many events in one chunk: else a network that cuts early would never let any of them through."""

    def cut_chunk(exchange: Exchange) -> None:
        events([], end="open")(exchange)
        exchange.wfile.write(b"ffff\r\n" + frame(1) + frame(2) + b"id: 3")
        exchange.close_connection = True

    peer.script(cut_chunk, events([frame(3), END]))

    assert seqs(peer_client.stream_task_updates(3)) == [1, 2, 3, 4]
    assert peer.received[1].headers["last-event-id"] == "2"


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


def test_silence_is_a_cut(peer, waits, new_client: Any):
    peer.script(events([frame(1), frame(2)], end="silent"), events([frame(3), END]))
    with new_client(peer.url, token="t", stream_timeout=0.2) as client:
        assert seqs(client.stream_task_updates(3)) == [1, 2, 3, 4]


def test_endless_silence_ends_in_a_timeout(peer, waits, new_client: Any):
    peer.always(events([], end="silent"))
    with (
        new_client(peer.url, token="t", stream_timeout=0.05) as client,
        pytest.raises(RequestTimeout, match="heartbeat"),
    ):
        next(client.stream_task_updates(3))


def test_reconnecting_gives_up(peer, peer_client, waits):
    peer.script(events([frame(1)], end="cut"))
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        list(peer_client.stream_task_updates(3))

    assert 5 <= len(waits) <= 20


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


def test_an_event_comes_before_the_next_is_sent(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """The reader must not wait until its buffer is full."""
    got_first = threading.Event()

    def live(exchange: Exchange) -> None:
        events([frame(1)], end="open")(exchange)
        assert got_first.wait(10)
        exchange.write_chunk(frame(2, "task.finished"))
        exchange.wfile.write(b"0\r\n\r\n")

    peer.script(live)
    updates = peer_client.stream_task_updates(3)

    assert next(updates)["seq"] == 1
    got_first.set()
    assert seqs(updates) == [2]


def test_a_stream_without_chunks_is_read_as_it_comes(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """A proxy may end the body by closing the connection, HTTP/1.0 style."""
    got_first = threading.Event()

    def live(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Connection": "close"})
        exchange.wfile.write(frame(1))
        exchange.wfile.flush()
        assert got_first.wait(10)
        exchange.wfile.write(frame(2, "task.finished"))

    peer.script(live)
    updates = peer_client.stream_task_updates(3)

    assert next(updates)["seq"] == 1
    got_first.set()
    assert seqs(updates) == [2]


def test_a_negative_start_is_refused_at_once(peer_client: BeRayClient) -> None:
    with pytest.raises(ValueError, match="after must be 0 or more"):
        peer_client.stream_task_updates(3, after=-1)


def test_heartbeats_keep_a_silent_stream_alive(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    """Longer in sum than the limit, but never silent for so long."""
    pace = threading.Event()

    def beat(exchange: Exchange) -> None:
        events([frame(1)], end="open")(exchange)
        for _ in range(6):
            pace.wait(0.2)  # never set: this is the rhythm itself
            exchange.write_chunk(HEARTBEAT)
            exchange.wfile.flush()
        exchange.write_chunk(frame(2, "task.finished"))
        exchange.wfile.write(b"0\r\n\r\n")

    peer.script(beat)

    with new_client(peer.url, stream_timeout=0.9) as client:
        assert seqs(client.stream_task_updates(3)) == [1, 2]
    assert waits == []
    assert len(peer.received) == 1


def test_silence_of_a_server_without_ids_names_the_remedy(
    peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    peer.script(events([b'data: {"status": "running"}\n\n'], end="silent"))

    with new_client(peer.url, stream_timeout=0.2) as client:
        updates = client.stream_task_updates(3)
        assert next(updates) == {"status": "running"}
        with pytest.raises(RequestTimeout, match="raise stream_timeout"):
            next(updates)


@pytest.mark.parametrize("leave", [lambda updates: updates.close(), lambda updates: None], ids=["close", "forget"])
def test_breaking_out_closes_the_connection(
    peer: LoopbackServer, peer_client: BeRayClient, leave: Callable[[Any], None]
) -> None:
    peer.script(events([frame(1), frame(2)], end="silent"))

    updates = peer_client.stream_task_updates(3)
    assert next(updates)["seq"] == 1
    leave(updates)
    del updates

    assert peer.client_left.wait(10)


def test_a_stream_read_to_its_end_gives_its_connection_back(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(events([frame(1, "task.finished")]), reply(200, []))

    list(peer_client.stream_task_updates(3))
    peer_client.list_tasks()

    assert peer.connections == 1


def test_the_client_can_be_used_while_a_stream_is_open(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(events([frame(1), frame(2, "task.finished")]), *[reply(200, {"id": 3})] * 2)

    for _ in peer_client.stream_task_updates(3):
        assert peer_client.get_task(3) == {"id": 3}


def test_an_event_without_end_is_refused(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "beray.protocol.sse.EventStreamDecoder.__init__.__kwdefaults__", {"last_event_id": "", "max_event_bytes": 1000}
    )
    peer.script(events([b"data: ", b"x" * 2000], end="silent"))

    with pytest.raises(EventTooLarge):
        next(peer_client.stream_task_updates(3))
    assert peer.client_left.wait(10)
