"""Watchers of event streams: raw sockets on one epoll, read as fast as can be, understood only afterwards.

While a round runs, what a socket brings is put aside with its time, and nothing else. So a read costs a few
microseconds, far less than any server here needs to send it, and the generator is never what is measured; each round
tells its share of its core all the same.
"""

import re
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

MARK: Final = b'"stamp":'
EVENT: Final = re.compile(rb'"number": ?([0-9]+), ?"stamp": ?([0-9]+)[^\n]*\n')
READ_BYTES: Final = 1 << 16
OPENED_AT_ONCE: Final = 64
OPEN_SECONDS: Final = 20.0


class Parsed(NamedTuple):
    """What some bytes of a body hold.

    Attributes:
        events: The number and the stamp of each whole event.
        wire: The beginning of a chunk whose rest has not come.
        text: The beginning of an event whose rest has not come.
    """

    events: tuple[tuple[int, int], ...]
    wire: bytes
    text: bytes


def parse(wire: bytes, text: bytes, *, is_chunked: bool) -> Parsed:
    """Take the events out of `wire`; `text` is what was left of the last one."""
    pieces, at = ([text], 0) if is_chunked else ([text, wire], len(wire))
    while (line_end := wire.find(b"\r\n", at)) >= 0:
        stop = line_end + 2 + int(wire[at:line_end], 16) + 2
        if stop > len(wire):
            break
        pieces.append(wire[line_end + 2 : stop - 2])
        at = stop
    text = b"".join(pieces)
    whole = text.rfind(b"\n") + 1
    events = tuple((int(number), int(stamp)) for number, stamp in EVENT.findall(text, 0, whole))
    return Parsed(events, wire[at:], text[whole:])


@dataclass(eq=False)
class Watcher:
    """One connection.

    Attributes:
        target: The index of what it watches.
        reads: When each piece came (`time.monotonic_ns`), and the piece.
    """

    socket: socket.socket
    target: int
    reads: list[tuple[int, bytes]] = field(default_factory=list)
    is_chunked: bool = True
    wire: bytes = b""
    text: bytes = b""


class Received(NamedTuple):
    """What the watchers of a group got in a round.

    Attributes:
        latencies: Nanoseconds from publishing to receiving, of each delivery.
        wrong: What one of them did not get in order, or None.
    """

    latencies: list[int]
    wrong: str | None


class Group:
    """Watchers that are read together."""

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []

    def open(self, address: tuple[str, int], heads: Sequence[bytes], *, count: int, receive_bytes: int | None) -> None:
        """Open `count` watchers, in turn of each of the targets that the heads ask for."""
        places = iter(range(len(self.watchers), len(self.watchers) + count))
        while batch := list(islice(places, OPENED_AT_ONCE)):
            opened = []
            for place in batch:
                connection = socket.socket()
                if receive_bytes is not None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
                connection.settimeout(OPEN_SECONDS)
                connection.connect(address)
                connection.sendall(heads[place % len(heads)])
                opened.append(Watcher(connection, place % len(heads)))
            for watcher in opened:
                head, watcher.wire = _read_head(watcher.socket)
                watcher.is_chunked = b"transfer-encoding: chunked" in head.lower()
                watcher.socket.setblocking(False)
            self.watchers += opened

    def close(self, *, keep: int) -> None:
        """Close all but the first `keep`."""
        for watcher in self.watchers[keep:]:
            watcher.socket.close()
        del self.watchers[keep:]

    def drain(self) -> None:
        """Take what came before the round."""
        for watcher in self.watchers:
            with suppress(BlockingIOError):
                while data := watcher.socket.recv(READ_BYTES):
                    watcher.reads.append((0, data))
        self.take(Expected(0, 0, 1))

    def widen(self, receive_bytes: int) -> None:
        """Let more be on its way to each: a window of a few KB moves at a few KB a tick of TCP's timers."""
        for watcher in self.watchers:
            watcher.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

    def register(self, poll: "select.epoll") -> dict[int, Watcher]:
        """Have them read; who has which descriptor."""
        for watcher in self.watchers:
            poll.register(watcher.socket, select.EPOLLIN)
        return {watcher.socket.fileno(): watcher for watcher in self.watchers}

    def take(self, expected: "Expected") -> Received:
        """Understand what was read, and forget it."""
        known: dict[tuple[bytes, bytes], Parsed] = {}  # most watchers read the very same bytes
        latencies: list[int] = []
        wrong = None
        for watcher in self.watchers:
            numbers = list(_numbers(watcher, known, latencies))
            if numbers != list(expected.of(watcher.target)) and wrong is None:
                wrong = (
                    f"a watcher of target {watcher.target} got {_shortly(numbers)}, not {expected.of(watcher.target)}"
                )
        return Received(latencies, wrong)


@dataclass(frozen=True)
class Expected:
    """The numbers that watchers should get, in order: `count` from `first` on, each target one in turn."""

    first: int
    count: int
    targets: int

    def of(self, target: int) -> range:
        """Those of one target."""
        return range(self.first + target, self.first + self.count, self.targets)


def _numbers(watcher: Watcher, known: dict[tuple[bytes, bytes], Parsed], latencies: list[int]) -> Iterator[int]:
    for received, data in watcher.reads:
        key = (watcher.wire + data, watcher.text)
        parsed = known.get(key)
        if parsed is None:
            parsed = known[key] = parse(*key, is_chunked=watcher.is_chunked)
        events, watcher.wire, watcher.text = parsed
        for number, stamp in events:
            if received:
                latencies.append(received - stamp)
            yield number
    watcher.reads.clear()


def _shortly(numbers: list[int]) -> str:
    return f"{len(numbers)} events, {numbers[:3]} … {numbers[-3:]}"


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of the answer, and what came with it."""
    got = b""
    while b"\r\n\r\n" not in got:
        data = connection.recv(READ_BYTES)
        if not data:
            raise RuntimeError(f"the server closed the stream: {got[:300]!r}")
        got += data
    head, _, rest = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"no stream: {got[:300]!r}")
    return head, rest
