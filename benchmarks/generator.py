"""The load generator of the benchmarks of streams: a process of its own, with a core of its own where there are two.

    with Generator() as generator:
        generator.open("ours", streams, count=1000)
        found = generator.watch("ours", plan, streams)

`python -m benchmarks.generator` is that process: on standard input a command a line, in JSON, on standard output the
answers.
"""

import gc
import json
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.measure import LOAD_CORE, cpu_seconds, on_core
from benchmarks.publishers import Plan, Publisher, Streams
from benchmarks.watchers import MARK, READ_BYTES, Expected, Group

ROUND_SECONDS: Final = 20.0  # a round that takes longer ends as it is, and is told as incomplete
QUIET_SECONDS: Final = 1.0  # after the last event: then none comes any more (a mark cut in two was not counted)
MISSED_QUIET_SECONDS: Final = 2.0  # where the server has first to see that somebody reads again
READING_BYTES: Final = 1 << 20  # what one that stood still gets for receiving when it reads on


@dataclass(frozen=True)
class Round:
    """What a round was like.

    Attributes:
        events: How many were published.
        deliveries: How many events all watchers together got.
        reads: In how many reads.
        seconds: From the first event to the last delivery.
        server_seconds: The servers' processor time.
        own_share: The generator's share of its core.
        p50_ms: From publishing to receiving.
        p99_ms: Likewise.
    """

    events: int
    deliveries: int
    reads: int
    seconds: float
    server_seconds: float
    own_share: float
    p50_ms: float
    p99_ms: float


class Generator:
    """The process, from outside."""

    def __enter__(self) -> Self:
        with on_core(LOAD_CORE):
            command = [sys.executable, "-m", "benchmarks.generator"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def open(self, group: str, streams: Streams, *, count: int, receive_bytes: int | None = None) -> None:
        """Open `count` more watchers of a group."""
        self._ask("open", group=group, streams=asdict(streams), count=count, receive_bytes=receive_bytes)

    def close(self, group: str, *, keep: int = 0) -> None:
        """Close the watchers of a group, but for the first `keep`."""
        self._ask("close", group=group, keep=keep)

    def watch(self, group: str, plan: Plan, streams: Streams, *, publishes: bool = True) -> Round:
        """Publish the plan, and read until each watcher of the group has its events.

        Raises:
            AssertionError: A watcher did not get all of its events, or not in order.
        """
        answer = self._ask("watch", group=group, plan=asdict(plan), streams=asdict(streams), publishes=publishes)
        wrong = answer.pop("wrong")
        assert wrong is None, f"{group}: {wrong}"
        return Round(**answer)

    def _ask(self, name: str, **about: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": name, **about}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


# ---- the process itself


class _Groups:
    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def open(self, group: str, streams: dict[str, Any], count: int, receive_bytes: int | None) -> dict[str, Any]:
        where = _streams(streams)
        heads = [head.encode() for head in where.heads]
        own = self._groups.setdefault(group, Group())
        own.open(where.address, heads, count=count, receive_bytes=receive_bytes)
        return {}

    def close(self, group: str, keep: int) -> dict[str, Any]:
        self._groups[group].close(keep=keep)
        return {}

    def watch(self, group: str, plan: dict[str, Any], streams: dict[str, Any], publishes: bool) -> dict[str, Any]:
        where = _streams(streams)
        wanted = Plan(**plan)
        own = self._groups[group] if group else Group()
        if publishes:
            own.drain()
        else:
            own.widen(READING_BYTES)
        return _Round(own, wanted, where).run(where.publisher(wanted) if publishes else None)


class _Round:
    def __init__(self, group: Group, plan: Plan, streams: Streams) -> None:
        self._group = group
        self._expected = Expected(plan.first, plan.count, len(plan.targets))
        self._plan = plan
        self._pids = streams.pids
        self._missing = sum(len(self._expected.of(watcher.target)) for watcher in group.watchers)

    def run(self, publisher: Publisher | None) -> dict[str, Any]:
        server, own, started = self._server_seconds(), time.process_time(), time.monotonic()
        ended = self._read(publisher, started + ROUND_SECONDS)
        seconds = time.monotonic() - started
        server, own = self._server_seconds() - server, time.process_time() - own
        reads = sum(len(watcher.reads) for watcher in self._group.watchers)
        latencies, wrong = self._group.take(self._expected)
        latencies.sort()
        return {
            "events": self._plan.count,
            "deliveries": len(latencies),
            "reads": reads,
            "seconds": ended - started,
            "server_seconds": server,
            "own_share": own / seconds,
            "p50_ms": _quantile(latencies, 0.5) / 1e6,
            "p99_ms": _quantile(latencies, 0.99) / 1e6,
            "wrong": wrong,
        }

    def _server_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in self._pids)

    def _read(self, publisher: Publisher | None, deadline: float) -> float:
        """Publish and read; when the last bytes came."""
        with select.epoll() as poll:
            readers = {
                descriptor: (watcher.socket.recv, watcher.reads.append)
                for descriptor, watcher in self._group.register(poll).items()
            }
            if publisher is not None:
                poll.register(publisher.socket, select.EPOLLIN)
            try:
                return self._turn(poll, readers, publisher, deadline)
            finally:
                if publisher is not None:
                    publisher.socket.close()

    def _turn(
        self,
        poll: select.epoll,
        readers: dict[int, tuple[Callable[[int], bytes], Callable[[tuple[int, bytes]], None]]],
        publisher: Publisher | None,
        deadline: float,
    ) -> float:
        missing, last = self._missing, time.monotonic()
        quiet = MISSED_QUIET_SECONDS if publisher is None else QUIET_SECONDS
        clock = time.monotonic_ns
        while (missing > 0 or not (publisher is None or publisher.is_done)) and time.monotonic() < deadline:
            due = None if publisher is None else publisher.due_in()
            ready = poll.poll(quiet if due is None else min(due, quiet), 4096)
            for descriptor, _ in ready:
                if (reader := readers.get(descriptor)) is None:
                    continue
                receive, note = reader
                data = receive(READ_BYTES)
                note((clock(), data))
                missing -= data.count(MARK)
                if not data:
                    poll.unregister(descriptor)
            if publisher is not None:
                if any(descriptor not in readers for descriptor, _ in ready):
                    publisher.hear()
                publisher.work()
            if ready:
                last = time.monotonic()
            elif publisher is None or publisher.is_done:
                break
        return last


def _streams(fields: dict[str, Any]) -> Streams:
    host, port = fields.pop("address")
    return Streams((host, port), tuple(fields.pop("heads")), tuple(fields.pop("pids")), **fields)


def _quantile(ordered: Sequence[int], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def main() -> None:
    """Do what standard input says until it ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # a pause would look like the server's
    groups = _Groups()
    for line in sys.stdin:
        about = json.loads(line)
        print(json.dumps(getattr(groups, about.pop("name"))(**about)), flush=True)


if __name__ == "__main__":
    main()
