"""What one watcher that has stopped reading changes for the 999 others of its task, and for the server's memory.

Two tasks of one server have 1000 watchers each; one of the first task's does not read. Rounds in turn, of the same
events. The one that stands still is far behind by then: before the others come, 9.5 MB have been published to it, more
than the kernel takes for a connection (4 MB) and the server lets lie unsent (`FULL_BYTES`), so that it has become a
cursor over the store. The server is asked: before the rounds and after them 999 watchers of 1000 are live. At the end
it reads on, and must get every event, in order.
"""

from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks.generator import Generator, Round
from benchmarks.measure import Benchmark, Goal, Side, resident_mib
from benchmarks.publishers import Plan
from benchmarks.publishing_server import PublishingServer, Watching, running_server
from tests.support.waiting import wait_until

ROUNDS: Final = 9
WATCHERS: Final = 1000
RECEIVE_BYTES: Final = 4096  # of the one that stands still: little stays in the kernel
PACED: Final = Plan(targets=(), first=0, count=16, per_second=20)
BURST: Final = Plan(targets=(), first=0, count=200, filling=500)
FAR: Final = Plan(targets=(), first=0, count=4400, filling=2000, in_flight=16)  # 9.5 MB; few at once: a chunk is small
STALLED: Final = 5  # tasks with one that does not read; one of them gets the others
LIVE_SECONDS: Final = 10.0


class Watched:
    """A task and its watchers.

    Attributes:
        published: Events so far.
    """

    def __init__(self, generator: Generator, server: PublishingServer, token: str, task: str) -> None:
        self.published = 0
        self._generator = generator
        self._server = server
        self._task = task
        self._open = partial(server.streams, token, [task])
        self._streams = self._open()

    def open(self, group: str, count: int, *, receive_bytes: int | None = None) -> None:
        """Open watchers, of what comes from now on."""
        streams = self._open(after=self.published + 1)  # the task's creation is an event too
        self._generator.open(f"{self._task} {group}", streams, count=count, receive_bytes=receive_bytes)

    def play(self, plan: Plan) -> Round:
        """Publish, to those who read."""
        own = replace(plan, targets=(self._task,), first=self.published)
        self.published += plan.count
        return self._generator.watch(f"{self._task} readers", own, self._streams)

    def wait_watching(self, *, members: int, live: int) -> None:
        """See that so many watch, and so many of them are live; it takes a moment to become so.

        Raises:
            AssertionError: It does not become so.
        """
        wanted = Watching(members, live)
        what = f"{live} live watchers of {members}"
        wait_until(lambda: self._server.watching(self._task) == wanted, seconds=LIVE_SECONDS, what=what)

    def read_on(self, *, first: int) -> Round:
        """Have the one who stood still read what it has missed since event `first`."""
        missed = Plan(targets=(self._task,), first=first, count=self.published - first)
        return self._generator.watch(f"{self._task} stalled", missed, self._streams, publishes=False)


def main() -> None:
    """Measure."""
    with Benchmark("slow_reader") as bench, Generator() as generator, running_server(bench.folder) as server:
        token = server.register("bench@example.com")
        tasks = server.make_tasks(token, STALLED + 2)
        without, read, *stalled = [Watched(generator, server, token, task) for task in tasks]
        read.open("readers", 1)
        read.play(FAR)  # what it takes to write and send so much is there before memory is looked at
        assert server.process is not None
        grown = [_fall_behind(watched, server.process.pid) for watched in stalled]
        with_one = stalled[-1]
        with_one.open("readers", WATCHERS - 1)
        without.open("readers", WATCHERS)
        for watched in (without, with_one):
            watched.play(BURST)  # warms up
        _check_live(with_one, without)
        _measure_others(bench, with_one, without)
        _check_live(with_one, without)
        _note_stalled(bench, grown, with_one.read_on(first=0))


def _fall_behind(watched: Watched, pid: int) -> float:
    """Open one that does not read, and leave it far behind; MiB that the server has grown by."""
    before = resident_mib(pid)
    watched.open("stalled", 1, receive_bytes=RECEIVE_BYTES)
    watched.open("readers", 0)
    watched.wait_watching(members=1, live=1)
    watched.play(FAR)
    watched.wait_watching(members=1, live=0)
    return resident_mib(pid) - before


def _check_live(with_one: Watched, without: Watched) -> None:
    with_one.wait_watching(members=WATCHERS, live=WATCHERS - 1)
    without.wait_watching(members=WATCHERS, live=WATCHERS)


def _measure_others(bench: Benchmark, with_one: Watched, without: Watched) -> None:
    rounds = bench.samples(ROUNDS, partial(_paced, with_one), partial(_paced, without), share=0.8)
    sides = [Side(name, [each.p99_ms for each in own]) for name, own in zip(_NAMES, rounds, strict=True)]
    what = f"publish → receive of the others, p99, {WATCHERS} watchers of a task"
    bench.compare(what, unit="ms", ours=sides[0], other=sides[1], goal=Goal("≤", 1.1))
    costs = [
        Side(name, [each.server_seconds / each.deliveries * 1e6 for each in own])
        for name, own in zip(_NAMES, rounds, strict=True)
    ]
    what = f"a delivery, {WATCHERS} watchers of a task, publishing included, processor time"
    bench.compare(what, unit="µs", ours=costs[0], other=costs[1])


_NAMES: Final = ("one of them does not read", "all read")


def _paced(watched: Watched) -> list[Round]:
    return [watched.play(PACED)]


def _note_stalled(bench: Benchmark, grown: list[float], missed: Round) -> None:
    what = "memory of the server for a watcher that does not read, 9.5 MB behind"
    bench.note(what, unit="MiB", ours=Side("BeRay", grown), goal=Goal("≤", 1, of="figure"))
    what = "events it got when it read on, all and in order"
    bench.note(what, unit="events", ours=Side("BeRay", [missed.deliveries]))


if __name__ == "__main__":
    main()
