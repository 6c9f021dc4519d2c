"""Streams over real connections: how they are written to, and readers that do not read."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from beray.protocol.sse import EventStreamDecoder
from beray.server.tasks.stream import hub as hubs
from tests.support.databases import sqlite_url
from tests.support.streams import WAYS, ServedStreams, StreamBench, Way, served_streams
from tests.support.waiting import wait_until

BIG = 20_000  # bytes of an event; a socket's buffers take some of them before anything is unsent


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[str, ServedStreams]]:
    with served_streams(sqlite_url(tmp_path / "beray.db"), 1) as (base_url, streams):
        streams.run(lambda bench: bench.append(1, 3))
        yield base_url, streams


class Watching:
    """A client that has connected; `read` takes everything to the end of the stream, in a thread."""

    def __init__(self, base_url: str, *, receive_buffer: int | None = None, body: bytes = b"") -> None:
        parts = urlsplit(base_url)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.socket.connect((parts.hostname, parts.port))
        self.socket.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.content = b""
        self._thread = threading.Thread(target=self._read_on)

    def read(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.socket.close()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _read_on(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self.socket.recv(1 << 16):
                self.content += piece

    @property
    def body(self) -> bytes:
        """The chunks put together; what is not whole yet is left out."""
        rest = self.content.partition(b"\r\n\r\n")[2]
        body = b""
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0 or len(rest) < length + 2:
                break
            assert rest[length : length + 2] == b"\r\n"
            body, rest = body + rest[:length], rest[length + 2 :]
        return body

    @property
    def seqs(self) -> list[int]:
        return [json.loads(event.data)["seq"] for event in EventStreamDecoder().feed(self.body)]

    @property
    def is_whole(self) -> bool:
        return self.content.endswith(b"0\r\n\r\n")


def count_live(bench: StreamBench) -> int:
    return sum(len(feed.live) for feed in bench.hub._feeds.values())


@pytest.mark.parametrize("way", WAYS)
def test_each_way_brings_every_event_once(served, way: Way):
    base_url, streams = served
    streams.bench.way = way
    answers = [requests.get(f"{base_url}/1", stream=True, timeout=30) for _ in range(3)]
    wait_until(lambda: streams.bench.ways == {way: 3}, what="three watchers")

    for _ in range(20):
        streams.run(lambda bench: bench.append(1, 5))
    streams.run(lambda bench: bench.finish(1))

    for answer in answers:
        assert [int(event.id) for event in EventStreamDecoder().feed(answer.content)] == list(range(1, 105))
    wait_until(lambda: not streams.bench.ways, what="their end")


@pytest.mark.parametrize("way", WAYS[:2])
def test_reader_that_stalls_holds_up_nobody_and_misses_nothing(served, way: Way):
    base_url, streams = served
    streams.bench.way = way
    stalled, other = Watching(base_url, receive_buffer=4096), Watching(base_url)
    other.read()
    wait_until(lambda: count_live(streams.bench) == 2, what="live watchers")

    for _ in range(40):
        streams.run(lambda bench: bench.append(1, 10, size=BIG))

    wait_until(lambda: len(other.seqs) == 403, what="the other one, who has all of it")
    assert count_live(streams.bench) == 1
    stalled.read()
    wait_until(lambda: stalled.seqs == list(range(1, 404)), what="all of it")
    wait_until(lambda: count_live(streams.bench) == 2, what="the stalled one to be live again")
    streams.run(lambda bench: bench.finish(1))
    wait_until(lambda: stalled.is_whole and other.is_whole, what="the end")
    assert stalled.seqs == other.seqs == list(range(1, 405))
    stalled.close()
    other.close()


def test_request_behind_a_stream_is_answered_after_it(served):
    base_url, streams = served
    watching = Watching(base_url)
    watching.socket.sendall(b"GET /1?after=3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    watching.read()
    wait_until(lambda: count_live(streams.bench) == 1, what="a live watcher")

    streams.run(lambda bench: bench.finish(1))

    wait_until(lambda: watching.content.count(b"0\r\n\r\n") == 2, what="two answers")
    assert watching.content.count(b"HTTP/1.1 200 OK") == 2
    assert watching.content.count(b"id: 4\n") == 2
    wait_until(lambda: streams.bench.streams.count == 0, what="the end")
    watching.close()


def test_watchers_who_go_are_forgotten_at_once(served):
    base_url, streams = served
    watchers = [Watching(base_url) for _ in range(5)]
    wait_until(lambda: count_live(streams.bench) == 5, what="live watchers")

    for watching in watchers:
        watching.close()

    wait_until(lambda: not streams.bench.ways and streams.bench.streams.count == 0, what="nobody")
    assert not streams.bench.hub._feeds


def test_client_that_leaves_before_its_stream_begins_leaves_nothing_behind(served):
    """While its token was looked up; then nothing more is told of it."""
    base_url, streams = served
    other = Watching(base_url)
    other.read()
    wait_until(lambda: count_live(streams.bench) == 1, what="a live watcher")

    async def close_gate(bench: StreamBench) -> None:
        bench.gate.clear()

    async def open_gate(bench: StreamBench) -> None:
        bench.gate.set()

    streams.run(close_gate)
    leaving = Watching(base_url)
    wait_until(lambda: streams.bench.asked == 2, what="its request")
    leaving.close()
    wait_until(lambda: len(streams.connections) == 1, what="the server to see that it has left")
    streams.run(open_gate)

    wait_until(lambda: streams.bench.ways.total() == 1 and streams.bench.streams.count == 1, what="its end")
    streams.run(lambda bench: bench.finish(1))
    wait_until(lambda: other.is_whole, what="the end")
    assert other.seqs == [1, 2, 3, 4]
    other.close()


def test_body_of_a_request_for_a_stream_is_passed_over(served):
    base_url, streams = served
    watching = Watching(base_url, body=bytes(300_000))
    wait_until(lambda: count_live(streams.bench) == 1, what="a live watcher")

    watching.close()

    wait_until(lambda: streams.bench.streams.count == 0, what="its end, which is behind the body")


def test_close_ends_streams_whole_and_cuts_those_that_nobody_reads(served, monkeypatch):
    monkeypatch.setattr(hubs, "CLOSE_SECONDS", 0.05)
    base_url, streams = served
    stalled, other = Watching(base_url, receive_buffer=4096), Watching(base_url)
    other.read()
    wait_until(lambda: count_live(streams.bench) == 2, what="live watchers")
    streams.run(lambda bench: bench.append(1, 400, size=BIG))
    wait_until(lambda: len(other.seqs) == 403, what="the other one")

    async def close(bench: StreamBench) -> None:
        bench.hub.close()

    streams.run(close)

    wait_until(lambda: other.is_whole and not streams.bench.ways, what="the end")
    stalled.read()
    stalled.close()
    assert not stalled.is_whole
    assert stalled.seqs == list(range(1, len(stalled.seqs) + 1))
    other.close()
