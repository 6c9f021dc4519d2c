"""`stream_task_updates` over real sockets: what only shows there. The rules are tested in protocol/test_flows.py."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import ConnectionFailed, EventTooLarge, NotFoundError, ProtocolError, RequestTimeout
from beray.protocol.sse import HEARTBEAT, RETRY_LINE, encode_event
from tests.support.loopback import Exchange, LoopbackServer, drop, events, reply


def frame(seq: int, type: str = "text.delta", **fields: object) -> bytes:
    body = {"v": 1, "seq": seq, "task_id": 3, "type": type, **fields}
    return encode_event(seq, type, json.dumps(body, ensure_ascii=False).encode())


def seqs(updates: list[dict[str, Any]]) -> list[int]:
    return [update["seq"] for update in updates]


def test_every_event_comes_as_a_dict(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(events([RETRY_LINE, frame(1, delta="a\u2028é 🌌"), HEARTBEAT, frame(2, "task.finished")]))

    updates = list(peer_client.stream_task_updates(task_id=3))

    assert seqs(updates) == [1, 2]
    assert updates[0]["delta"] == "a\u2028é 🌌"
    (sent,) = peer.received
    assert (sent.path, sent.headers["accept"], sent.headers["authorization"]) == (
        "/api/v1/tasks/3/stream",
        "text/event-stream",
        "Bearer t0k",
    )
    assert "last-event-id" not in sent.headers


def test_bytes_cut_inside_a_character_come_together(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    data = frame(1, delta="中文🌌") + frame(2, "task.finished")
    peer.script(events([data[at : at + 1] for at in range(len(data))]))

    assert next(peer_client.stream_task_updates(3))["delta"] == "中文🌌"


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
    assert seqs(list(updates)) == [2]


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
    assert seqs(list(updates)) == [2]


def test_a_refusal_is_raised_at_the_first_step(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(404, {"detail": "没有", "code": "task_not_found"}))

    updates = peer_client.stream_task_updates(3)

    with pytest.raises(NotFoundError) as error:
        next(updates)
    assert (error.value.code, error.value.error_detail) == ("task_not_found", "没有")


@pytest.mark.parametrize("end", ["cut", "clean"])
def test_a_lost_connection_is_resumed(
    peer: LoopbackServer, peer_client: BeRayClient, waits: list[float], end: str
) -> None:
    peer.script(
        events([RETRY_LINE, frame(1), frame(2)], end=end),
        drop,
        reply(503, {"detail": "starting"}, {"Retry-After": "1"}),
        events([RETRY_LINE, frame(2), frame(3, "task.finished")]),
    )

    updates = list(peer_client.stream_task_updates(3))

    assert seqs(updates) == [1, 2, 3]
    assert [one.headers.get("last-event-id") for one in peer.received] == [None, "2", "2", "2"]
    assert len(waits) == 3


def test_the_caller_may_begin_after_an_event(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(events([frame(6, "task.finished")]))

    assert seqs(list(peer_client.stream_task_updates(3, after=5))) == [6]
    assert peer.received[0].headers["last-event-id"] == "5"


def test_a_negative_start_is_refused_at_once(peer_client: BeRayClient) -> None:
    with pytest.raises(ValueError, match="after must be 0 or more"):
        peer_client.stream_task_updates(3, after=-1)


def test_silence_without_heartbeats_is_a_cut(peer: LoopbackServer, waits: list[float]) -> None:
    peer.script(events([frame(1)], end="silent"), events([frame(2, "task.finished")]))

    with BeRayClient(peer.url, stream_timeout=0.3) as client:
        updates = list(client.stream_task_updates(3))

    assert seqs(updates) == [1, 2]
    assert peer.client_left.wait(10)


def test_heartbeats_keep_a_silent_stream_alive(peer: LoopbackServer, waits: list[float]) -> None:
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

    with BeRayClient(peer.url, stream_timeout=0.9) as client:
        assert seqs(list(client.stream_task_updates(3))) == [1, 2]
    assert waits == []
    assert len(peer.received) == 1


def test_silence_of_a_server_without_ids_names_the_remedy(peer: LoopbackServer, waits: list[float]) -> None:
    peer.script(events([b'data: {"status": "running"}\n\n'], end="silent"))

    with BeRayClient(peer.url, stream_timeout=0.2) as client:
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


def test_a_page_in_place_of_a_stream_is_a_protocol_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"<html>"))

    with pytest.raises(ProtocolError, match="base_url"):
        next(peer_client.stream_task_updates(3))


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


def test_a_server_that_never_comes_back_is_given_up(
    peer: LoopbackServer, peer_client: BeRayClient, waits: list[float]
) -> None:
    peer.script(events([frame(1)], end="cut"))
    peer.always(drop)

    updates = peer_client.stream_task_updates(3)

    assert next(updates)["seq"] == 1
    with pytest.raises(ConnectionFailed):
        next(updates)
    assert sum(waits) == pytest.approx(56, rel=0.35)  # 75 s, of which chance takes up to a half
