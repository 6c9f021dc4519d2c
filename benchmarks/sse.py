"""Event streams: one task with 1000 watchers, 1000 tasks with one each, and 5000 watchers who only wait.

Against nginx with nchan (one worker), and against what people write first: sse-starlette with a queue and an encoding
for each watcher. The servers share core 0 and are asked in turn; the load generator has core 1. Events are as large
everywhere, and bear the time of their publishing. Ours are published in the server's own process through its event log,
each committed durably before it is sent; the others get a POST and keep nothing on disk. A watcher that does not get
every event, in order, ends the benchmark.

What counts is the servers' processor time per delivery: of whole rounds, less what publishing as many events costs when
nobody watches (a row of its own), on each side alike.
"""

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Final

from benchmarks.generator import Generator, Round
from benchmarks.measure import SERVER_CORE, Benchmark, Goal, Side, on_core, resident_mib
from benchmarks.publishers import Plan, Streams
from benchmarks.publishing_server import running_server
from benchmarks.sse_twin import running_sse_twin
from tests.support.nginx import NCHAN, nginx_lacks, nginx_version, running_nginx

ROUNDS: Final = 7
WATCHERS: Final = 1000
IDLE_STEPS: Final = 5  # of 1000 watchers each
TASKS: Final = 1000
SPARE_FILES: Final = 500  # what a process has open besides connections

PACED: Final = Plan(targets=(), first=0, count=12, per_second=20)
PACED_ALONE: Final = replace(PACED, count=16, per_second=100)  # one at a time too, in less time
BURST: Final = Plan(targets=(), first=0, count=100)
MANY: Final = Plan(targets=(), first=0, count=TASKS, per_second=2000)

_NCHAN: Final = """
    nchan_max_reserved_memory 256M;
    server {
        listen 80;
        location = /publish {
            nchan_publisher;
            nchan_channel_id $arg_id;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 10m;
        }
        location = /watch {
            nchan_subscriber eventsource;
            nchan_channel_id $arg_id;
            nchan_subscriber_first_message newest;
        }
    }
"""


class Contender:
    """A server that is measured.

    Args:
        name: For the table.
        streams: Where its streams are; the one head is of a target `{}`.
        targets: What can be watched there: the first has 1000 watchers, the second none, each of the others one.
    """

    def __init__(self, name: str, streams: Streams, targets: Sequence[str]) -> None:
        self.name = name
        self.one, self.quiet, self.many = targets[:1], targets[1:2], targets[2:]
        self.memory_pid = streams.pids[-1]
        self._streams = streams
        self._next = 0

    def open(self, generator: Generator, targets: Sequence[str]) -> None:
        """Open 1000 more watchers of these targets."""
        (head,) = self._streams.heads
        streams = replace(self._streams, heads=tuple(head.format(target) for target in targets))
        generator.open(self._group(targets), streams, count=WATCHERS)

    def close(self, generator: Generator, targets: Sequence[str], *, keep: int = 0) -> None:
        """Close the watchers of these targets but for `keep`."""
        generator.close(self._group(targets), keep=keep)

    def play(self, generator: Generator, plan: Plan, targets: Sequence[str]) -> Round:
        """A round."""
        own = replace(plan, targets=tuple(targets), first=self._next)
        self._next += plan.count
        return generator.watch(self._group(targets), own, self._streams)

    def _group(self, targets: Sequence[str]) -> str:
        return "" if targets is self.quiet else f"{self.name}, {targets[0]} to {targets[-1]}"


def main() -> None:
    """Measure."""
    with Benchmark("sse") as bench, Generator() as generator, ExitStack() as servers:
        ours = servers.enter_context(_beray(bench))
        others = [ours]
        if (lack := nginx_lacks(module=NCHAN)) is None:
            others.append(servers.enter_context(_nchan(bench)))
        else:
            bench.skip("nginx with nchan", lack)
        nchan = others[1:]
        _measure_idle(bench, generator, [ours, *nchan])
        if find_spec("sse_starlette") is not None:
            twin = servers.enter_context(_sse_starlette())
            twin.open(generator, twin.one)
            others.append(twin)
        else:
            bench.skip("sse-starlette", "it is not installed")
        _measure_paced(bench, generator, others)
        for name, latest, measure in (("a burst", 0.85, _measure_burst), ("1000 tasks", 1.0, _measure_many)):
            if bench.is_late(latest):
                bench.skip(name, "what came before took too long on this machine")
            else:
                measure(bench, generator, [ours, *nchan])


# ---- the servers


@contextmanager
def _beray(bench: Benchmark) -> Iterator[Contender]:
    with running_server(bench.folder) as server:
        token = server.register("bench@example.com")
        tasks = server.make_tasks(token, TASKS + 2)
        yield Contender("BeRay", server.streams(token, ["{}"]), tasks)


@contextmanager
def _nchan(bench: Benchmark) -> Iterator[Contender]:
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            nginx = stack.enter_context(running_nginx(bench.folder / "nginx", _NCHAN, module=NCHAN))
        head = "GET /watch?id={} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
        streams = Streams(nginx.address, (head,), nginx.pids, post_to="/publish?id={}")
        yield Contender(f"nginx {nginx_version()} with nchan", streams, _numbers())


@contextmanager
def _sse_starlette() -> Iterator[Contender]:
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            twin = stack.enter_context(running_sse_twin())
        head = "GET /watch/{} HTTP/1.1\r\nHost: a\r\n\r\n"
        yield Contender("sse-starlette", Streams(twin.address, (head,), (twin.pid,), post_to="/publish/{}"), _numbers())


def _numbers() -> list[str]:
    return [str(number) for number in range(TASKS + 2)]


# ---- what is measured


def _measure_idle(bench: Benchmark, generator: Generator, contenders: list[Contender]) -> None:
    """Memory of those who wait; leaves each contender the 1000 watchers of `one`."""
    steps = min(IDLE_STEPS, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES) // WATCHERS)
    grown: list[list[float]] = [[] for _ in contenders]
    for step in range(steps):
        if step > 0 and bench.is_late(0.4):
            break  # on a slow machine fewer watchers, which the table tells
        for own, contender in zip(grown, contenders, strict=True):
            own.append(_grown_kib(contender, generator))
    for contender in contenders:
        contender.close(generator, contender.one, keep=WATCHERS)
    sides = [Side(contender.name, own) for contender, own in zip(contenders, grown, strict=True)]
    what = f"memory of an idle watcher, {len(grown[0])} × {WATCHERS} of one task"
    goal = Goal("≤", 10, of="figure")
    for other in sides[1:]:
        bench.compare(what, unit="KiB", ours=sides[0], other=other, goal=goal)
    if not sides[1:]:
        bench.note(what, unit="KiB", ours=sides[0], goal=goal)


def _grown_kib(contender: Contender, generator: Generator) -> float:
    before = resident_mib(contender.memory_pid)
    contender.open(generator, contender.one)
    return (resident_mib(contender.memory_pid) - before) * 1024 / WATCHERS


def _measure_paced(bench: Benchmark, generator: Generator, contenders: list[Contender]) -> None:
    ours, *others = _play(bench, generator, contenders, PACED, alone=PACED_ALONE, share=0.55)
    for other in others:
        is_nchan = other.name != "sse-starlette"
        what = f"a delivery, {WATCHERS} watchers of one task, 20 events/s, processor time"
        bench.compare(what, unit="µs", ours=ours.cost(), other=other.cost(), goal=Goal("≤", 0.8 if is_nchan else 0.2))
        if is_nchan:
            _compare_delays(bench, f"{WATCHERS} watchers of one task, 20 events/s", ours, other, has_goals=True)
            what = "publishing an event that nobody watches, processor time (ours is durable)"
            bench.compare(what, unit="µs", ours=ours.publishing(), other=other.publishing())
    if not others:
        bench.note("a delivery, processor time", unit="µs", ours=ours.cost())


def _measure_burst(bench: Benchmark, generator: Generator, contenders: list[Contender]) -> None:
    ours, *others = _play(bench, generator, contenders, BURST, alone=BURST, share=0.75)
    where = f"{WATCHERS} watchers, a burst of {BURST.count} events, {BURST.in_flight} in flight"
    for other in others:
        what = f"a delivery, {where}, processor time"
        bench.compare(what, unit="µs", ours=ours.cost(), other=other.cost(), goal=Goal("≤", 0.5))
        what = f"deliveries per second, {where}"
        bench.compare(what, unit="1/s", ours=ours.side(_rate), other=other.side(_rate))
        what = f"events in a read, {where}"
        bench.compare(what, unit="events", ours=ours.side(_joined), other=other.side(_joined))


def _measure_many(bench: Benchmark, generator: Generator, contenders: list[Contender]) -> None:
    for contender in contenders:
        contender.open(generator, contender.many)
    ours, *others = _play(bench, generator, contenders, MANY, alone=None, share=1.0)
    where = f"{TASKS} tasks with a watcher each, {MANY.per_second:,.0f} events/s"
    for other in others:
        what = f"an event published and delivered, {where}, processor time"
        bench.compare(what, unit="µs", ours=ours.side(_whole_us), other=other.side(_whole_us))
        _compare_delays(bench, where, ours, other, has_goals=False)


def _compare_delays(bench: Benchmark, where: str, ours: "Played", other: "Played", *, has_goals: bool) -> None:
    for name, delay, goal in (("p50", _p50_ms, 1.0), ("p99", _p99_ms, 1.5)):
        bench.compare(
            f"publish → receive, {name}, {where}",
            unit="ms",
            ours=ours.side(delay),
            other=other.side(delay),
            goal=Goal("≤", goal) if has_goals else None,
        )


@dataclass
class Played:
    """A contender's rounds: with watchers, and with nobody there."""

    name: str
    rounds: list[Round]
    alone: list[Round]

    def side(self, figure: Callable[[Round], float]) -> Side:
        """One figure of each round."""
        return Side(self.name, [figure(each) for each in self.rounds])

    def publishing(self) -> Side:
        """Microseconds that an event costs nobody watches."""
        return Side(self.name, [each.server_seconds / each.events * 1e6 for each in self.alone])

    def cost(self) -> Side:
        """Microseconds of a delivery, without what publishing alone costs."""
        publishing = self.publishing().figure / 1e6
        costs = [(each.server_seconds - publishing * each.events) / each.deliveries * 1e6 for each in self.rounds]
        return Side(self.name, costs)


def _play(
    bench: Benchmark,
    generator: Generator,
    contenders: list[Contender],
    plan: Plan,
    *,
    alone: Plan | None,
    share: float,
) -> list[Played]:
    """Rounds in turn; `alone` is played to nobody."""
    targets_of = {True: lambda one: one.one, False: lambda one: one.many}[alone is not None]
    measures = [partial(_round, generator, contender, plan, targets_of(contender)) for contender in contenders]
    if alone is not None:
        measures += [partial(_round, generator, contender, alone, contender.quiet) for contender in contenders]
    for measure in measures:
        measure()  # warms up
    rounds = bench.samples(ROUNDS, *measures, share=share)
    played = rounds[: len(contenders)]
    others = rounds[len(contenders) :] or [[] for _ in contenders]
    _note_generator(bench, plan, [each for own in played for each in own])
    return [Played(each.name, own, quiet) for each, own, quiet in zip(contenders, played, others, strict=True)]


def _round(generator: Generator, contender: Contender, plan: Plan, targets: Sequence[str]) -> list[Round]:
    return [contender.play(generator, plan, targets)]


def _note_generator(bench: Benchmark, plan: Plan, rounds: list[Round]) -> None:
    name = {PACED: "20 events/s", BURST: "burst", MANY: "1000 tasks"}[plan]
    shares = Side("highest of all rounds", [max(each.own_share for each in rounds) * 100])
    bench.note(f"the load generator's share of its core, {name}", unit="%", ours=shares)


def _whole_us(each: Round) -> float:
    return each.server_seconds / each.events * 1e6


def _rate(each: Round) -> float:
    return each.deliveries / each.seconds


def _joined(each: Round) -> float:
    return each.deliveries / each.reads


def _p50_ms(each: Round) -> float:
    return each.p50_ms


def _p99_ms(each: Round) -> float:
    return each.p99_ms


if __name__ == "__main__":
    main()
