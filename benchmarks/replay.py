"""Replay of 100,000 stored events to one watcher, against nginx that sends the same bytes from a file (sendfile).

What counts is the server's processor time; servers have core 0, who reads has core 1. And what a replay does to others:
the delay of another watcher's live events while replays follow one another, and while there are none.
"""

import itertools
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.bulk import ask, unchunked
from benchmarks.generator import Generator, Round
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Benchmark, Goal, Side, cpu_seconds, on_core
from benchmarks.publishers import Plan, Streams
from benchmarks.publishing_server import running_server
from beray.protocol.sse import encode_event
from tests.support.nginx import nginx_lacks, nginx_version, running_nginx

ROUNDS: Final = 9
EVENTS: Final = 100_000
FILLING: Final = 110  # 290 bytes a frame, 29 MB in all
LIVE: Final = Plan(targets=(), first=0, count=160, per_second=200)


def main() -> None:
    """Measure."""
    with Benchmark("replay") as bench, Generator() as generator, ExitStack() as servers:
        server = servers.enter_context(running_server(bench.folder))
        token = server.register("bench@example.com")
        stored, live = server.make_tasks(token, 2)
        frames = _store(server.data_dir / "beray.db", int(stored))
        streams = server.streams(token, [stored])
        _check(streams, frames)
        others = [_serve_file(servers, bench.folder, frames)] if (lack := nginx_lacks()) is None else []
        if lack is not None:
            bench.skip("nginx", lack)
        _measure_replay(bench, [Source("BeRay", streams.address, streams.heads[0].strip(), streams.pids), *others])
        _measure_live(bench, Live(generator, server.streams(token, [live]), live), streams)


def _store(database: Path, task_id: int) -> bytes:
    """Fill a task's log, the last event being the task's end; the log's bytes."""
    frames = [_frame(task_id, seq) for seq in range(1, EVENTS + 1)]
    with closing(sqlite3.connect(database, timeout=15)) as connection, connection:
        rows = [(task_id, seq, frame) for seq, frame in enumerate(frames, 1)]
        connection.executemany("INSERT OR REPLACE INTO event (task_id, seq, frame) VALUES (?, ?, ?)", rows)
        connection.execute("UPDATE task SET last_seq = ?, status = 'completed' WHERE id = ?", (EVENTS, task_id))
    return b"".join(frames)


def _frame(task_id: int, seq: int) -> bytes:
    kind = "task.finished" if seq == EVENTS else "tool.output"
    body = {"v": 1, "seq": seq, "at": "2026-01-01T00:00:00.000Z", "task_id": task_id, "type": kind}
    return encode_event(seq, kind, json.dumps(body | {"call_id": "c1", "delta": "x" * FILLING}).encode())


def _check(streams: Streams, frames: bytes) -> None:
    """Every byte of the log must come, and nothing between."""
    wire = bytearray()
    ask(streams.address, streams.heads[0].strip(), take=wire.extend)
    assert frames in unchunked(bytes(wire)), "the replay is not what is stored"


@dataclass(frozen=True)
class Source:
    """Where the log can be read from."""

    name: str
    address: tuple[str, int]
    head: str
    pids: tuple[int, ...]

    def read_ms(self) -> float:
        """Milliseconds of processor time to send it once."""
        before = self._used()
        with on_core(LOAD_CORE):
            ask(self.address, self.head)
        return (self._used() - before) * 1000

    def _used(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)


def _serve_file(servers: ExitStack, folder: Path, frames: bytes) -> Source:
    (folder / "log").write_bytes(frames)
    with on_core(SERVER_CORE):
        nginx = servers.enter_context(running_nginx(folder / "nginx", f"server {{ listen 80; root {folder}; }}"))
    name = f"nginx {nginx_version()}, sendfile"
    return Source(name, nginx.address, "GET /log HTTP/1.1\r\nHost: a", nginx.pids)


def _measure_replay(bench: Benchmark, sources: list[Source]) -> None:
    for source in sources:
        source.read_ms()  # warms up
    ours, *others = bench.rounds(ROUNDS, *(source.read_ms for source in sources), share=0.6)
    what = f"replay of {EVENTS:,} events to one watcher, processor time"
    for source, other in zip(sources[1:], others, strict=True):
        bench.compare(what, unit="ms", ours=Side("BeRay", ours), other=Side(source.name, other), goal=Goal("≤", 6))
    if not others:
        bench.note(what, unit="ms", ours=Side("BeRay", ours))


@dataclass(frozen=True)
class Live:
    """A task with one watcher."""

    generator: Generator
    streams: Streams
    task: str

    def play(self, first: int) -> Round:
        """Live events, while whatever else goes on."""
        return self.generator.watch("live", replace(LIVE, targets=(self.task,), first=first), self.streams)


def _measure_live(bench: Benchmark, live: Live, replayed: Streams) -> None:
    live.generator.open("live", live.streams, count=1)
    numbers = itertools.count(0, LIVE.count)

    def quiet() -> list[Round]:
        return [live.play(next(numbers))]

    def beside_replays() -> list[Round]:
        with _replaying(replayed):
            return [live.play(next(numbers))]

    quiet()
    beside, alone = bench.samples(ROUNDS, beside_replays, quiet)
    bench.compare(
        f"publish → receive of another task's watcher, p99, {LIVE.per_second:.0f} events/s",
        unit="ms",
        ours=Side("one replay after the other beside it", [each.p99_ms for each in beside]),
        other=Side("nothing beside it", [each.p99_ms for each in alone]),
        goal=Goal("≤", 20, of="difference"),
    )


@contextmanager
def _replaying(streams: Streams) -> Iterator[None]:
    """One replay after the other for as long as the block lasts."""
    is_over = threading.Event()

    def replay() -> None:
        while not is_over.is_set():
            ask(streams.address, streams.heads[0].strip())

    with on_core(LOAD_CORE), ThreadPoolExecutor(1) as reader:
        replaying = reader.submit(replay)
        try:
            yield
        finally:
            is_over.set()
            replaying.result()


if __name__ == "__main__":
    main()
