"""What is published, and how: by a plan given to our server, or by POSTs to the others."""

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

READ_BYTES: Final = 1 << 16
STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9])[0-9]{2}")
STATUS_BYTES: Final = len("HTTP/1.1 201")


@dataclass(frozen=True)
class Plan:
    """Events to publish: the k-th goes to the k-th task, in turn.

    Attributes:
        targets: The tasks (or what the other sides have instead).
        first: The number of the first event; it stands in its JSON, beside the time at which it was published.
        count: How many.
        per_second: None: as fast as it goes.
        in_flight: How many may be on their way at once.
        filling: Bytes of text in each.
    """

    targets: tuple[str, ...]
    first: int
    count: int
    per_second: float | None = None
    in_flight: int = 64
    filling: int = 100

    def fields(self, index: int) -> dict[str, Any]:
        """What an event tells, at the moment it is published."""
        return {"number": self.first + index, "stamp": time.monotonic_ns(), "delta": "x" * self.filling}

    def due(self, index: int, started: float) -> float:
        """When an event is to be published, by `time.monotonic`."""
        return started if self.per_second is None else started + index / self.per_second

    def to_line(self) -> bytes:
        """The plan as it goes through the door."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Publisher(Protocol):
    """Publishes a plan's events while the generator reads. `socket` brings what it waits for."""

    socket: socket.socket
    is_done: bool

    def due_in(self) -> float | None:
        """Seconds until `work` should be called; None: when something has come."""
        ...

    def work(self) -> None:
        """Publish what is due."""
        ...

    def hear(self) -> None:
        """Read what has come."""
        ...


class ByDoor:
    """Our server gets the whole plan and follows it."""

    def __init__(self, door: Path, plan: Plan) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(door))
        self.is_done = False
        self._plan: Plan | None = plan
        self._answer = b""

    def due_in(self) -> float | None:
        """See `Publisher`."""
        return None if self._plan is None else 0.0

    def work(self) -> None:
        """See `Publisher`."""
        if self._plan is not None:
            self.socket.sendall(self._plan.to_line())
            self._plan = None

    def hear(self) -> None:
        """See `Publisher`."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server closed the door; see its log")
        self._answer += data
        self.is_done = self._answer.endswith(b"\n")


class ByPosts:
    """A POST for each event, on one connection, which keeps them in order; several may be on their way.

    Args:
        address: Of the server.
        path_of: Where an event of a target is posted to.
        plan: What to publish.
    """

    def __init__(self, address: tuple[str, int], path_of: Callable[[str], str], plan: Plan) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._path_of = path_of
        self._plan = plan
        self._started = time.monotonic()
        self._sent = 0
        self._answered = 0
        self._rest = b""

    @property
    def is_done(self) -> bool:
        """See `Publisher`."""
        return self._answered >= self._plan.count

    def due_in(self) -> float | None:
        """See `Publisher`."""
        if not self._may_send():
            return None
        return max(0.0, self._plan.due(self._sent, self._started) - time.monotonic())

    def work(self) -> None:
        """See `Publisher`."""
        posts = []
        while self._may_send() and self._plan.due(self._sent, self._started) <= time.monotonic():
            posts.append(self._post(self._sent))
            self._sent += 1
        if posts:
            self.socket.sendall(b"".join(posts))

    def _may_send(self) -> bool:
        return self._sent < self._plan.count and self._sent - self._answered < self._plan.in_flight

    def _post(self, index: int) -> bytes:
        target = self._plan.targets[index % len(self._plan.targets)]
        body = json.dumps({"v": 1, "type": "tool.output", **self._plan.fields(index)}, separators=(",", ":")).encode()
        head = f"POST {self._path_of(target)} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        return f"{head}X-EventSource-Event: tool.output\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def hear(self) -> None:
        """See `Publisher`."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server closed the publisher's connection")
        got = self._rest + data
        states = list(STATUS.finditer(got))
        if any(state[1] != b"2" for state in states):
            raise RuntimeError(f"an event was not taken: {got[:300]!r}")
        self._answered += len(states)
        self._rest = got[states[-1].end() if states else 0 :][-STATUS_BYTES:]


@dataclass(frozen=True)
class Streams:
    """Where a server's streams are.

    Attributes:
        address: Host and port.
        heads: The request of each target's watchers, as text.
        pids: The processes that serve.
        door: Where plans go in; None: events are posted.
        post_to: Else the path of a POST, `{}` standing for the target.
    """

    address: tuple[str, int]
    heads: tuple[str, ...]
    pids: tuple[int, ...]
    door: str | None = None
    post_to: str = ""

    def publisher(self, plan: Plan) -> Publisher:
        """What publishes a plan here."""
        if self.door is not None:
            return ByDoor(Path(self.door), plan)
        return ByPosts(self.address, self.post_to.format, plan)
