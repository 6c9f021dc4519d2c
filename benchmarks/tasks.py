"""A whole task over HTTP: create → first event seen, create → finished, tasks per second, processor time of each.

- First event: against a twin that commits one row and streams it back, POST, then GET, with the same client, on a bare
  Starlette server.
- Everything else: against Agno's AgentOS. The same scripted model in a process of its own has both write a script and
  run it, by one command of their shell tool, and say so.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests

from benchmarks.measure import Benchmark, Goal, Side
from benchmarks.model_process import model_process
from benchmarks.peers.agno import AGENT, VERSION, agno_python, running_agno
from benchmarks.peers.base import NotHere
from benchmarks.process_tree import tree_cpu_seconds
from benchmarks.twin import running_twin
from tests.support.server import ServerProcess

GOAL = "写一个打印 hello world 的 Python 脚本"
TASKS = 20
AT_ONCE = 16
BATCHES = 5
BATCHES_LATEST = 0.6  # of the benchmark's time: after it there is room for the batches of two servers alone
MOST_CPU_SECONDS = 0.1
HTTP_SECONDS = 60

Event = dict[str, Any]


class Client(ABC):
    """Runs tasks on one server, by `requests.Session` as anybody would."""

    def __init__(self, token: str = "") -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def times_ms(self) -> tuple[float, float]:
        """From the request that creates: to the first event in hand, and to the one that ends the task, completed."""
        started = time.perf_counter()
        events = self._run()
        last = next(events)
        first_ms = (time.perf_counter() - started) * 1000
        for event in events:
            last = event
        finished_ms = (time.perf_counter() - started) * 1000
        assert self._is_completed(last), last
        return first_ms, finished_ms

    def finished_ms(self) -> float:
        """From the request that creates to the event that ends the task, which must have completed."""
        return self.times_ms()[1]

    @abstractmethod
    def _run(self) -> Iterator[Event]:
        """Create a task; its events."""

    @abstractmethod
    def _is_completed(self, last: Event) -> bool: ...

    def _events(self, stream: requests.Response) -> Iterator[Event]:
        stream.raise_for_status()
        for line in stream.iter_lines(chunk_size=1):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


class Caller(Client):
    """BeRay's, and the twin's: POST a goal, read the stream."""

    def __init__(self, create_url: str, stream_url: str, token: str = "") -> None:
        super().__init__(token)
        self._create_url = create_url
        self._stream_url = stream_url

    def first_event_ms(self) -> float:
        """From the request that creates to the first event in hand."""
        started = time.perf_counter()
        events = self._run()
        next(events)
        elapsed = time.perf_counter() - started
        for _ in events:
            pass
        return elapsed * 1000

    def _run(self) -> Iterator[Event]:
        answer = self._session.post(self._create_url, json={"goal": GOAL}, timeout=HTTP_SECONDS)
        answer.raise_for_status()
        url = self._stream_url.format(id=answer.json()["id"])
        with self._session.get(url, stream=True, timeout=HTTP_SECONDS) as stream:
            yield from self._events(stream)

    def _is_completed(self, last: Event) -> bool:
        return (last["type"], last["status"]) == ("task.finished", "completed")


def caller_of(server: ServerProcess, token: str) -> Caller:
    """A client of a BeRay server."""
    tasks = f"{server.base_url}/api/v1/tasks"
    return Caller(tasks, f"{tasks}/{{id}}/stream", token)


class AgnoClient(Client):
    """Agno's: one request, whose answer is the stream."""

    def __init__(self, base_url: str, *, is_detached: bool) -> None:
        super().__init__()
        self._url = f"{base_url}/agents/{AGENT}/runs"
        self._form = {"message": GOAL, "stream": "true", "background": str(is_detached).lower()}

    def _run(self) -> Iterator[Event]:
        with self._session.post(self._url, data=self._form, stream=True, timeout=HTTP_SECONDS) as stream:
            yield from self._events(stream)

    def _is_completed(self, last: Event) -> bool:
        return bool(last["event"] == "RunCompleted")


@dataclass
class Contender:
    """A server that runs tasks, and what was found of it."""

    name: str
    pid: int
    clients: list[Client]
    first_ms: list[float] = field(default_factory=list)
    finished_ms: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def run_one(self) -> None:
        """A task alone."""
        first_ms, finished_ms = self.clients[0].times_ms()
        self.first_ms.append(first_ms)
        self.finished_ms.append(finished_ms)

    def run_many(self, pool: ThreadPoolExecutor) -> None:
        """A task of each client at once; the processor time is of the server's whole tree."""
        before, started = tree_cpu_seconds(self.pid), time.perf_counter()
        list(pool.map(lambda client: client.finished_ms(), self.clients))
        self.per_second.append(len(self.clients) / (time.perf_counter() - started))
        self.cpu_seconds.append((tree_cpu_seconds(self.pid) - before) / len(self.clients))


def main() -> None:
    """Measure."""
    agno = _find_agno()
    with Benchmark("tasks") as bench, ExitStack() as servers:
        model_url = servers.enter_context(model_process("one command"))
        ours = _start_ours(bench, servers, model_url)
        peers = _start_peers(bench, servers, model_url, agno)
        for contender in (ours, *peers):
            contender.clients[0].finished_ms()  # loads what is loaded at the first task
        _compare_first(bench, ours)
        _measure_contenders(bench, ours, peers)


def _find_agno() -> Path | NotHere:
    """Made before the benchmark's time begins."""
    try:
        return agno_python()
    except NotHere as reason:
        return reason


def _start_ours(bench: Benchmark, servers: ExitStack, model_url: str) -> Contender:
    server = ServerProcess(
        bench.folder / "data",
        model="openai:scripted",
        model_base_url=model_url,
        model_api_key="key",
        max_running_tasks_per_user=AT_ONCE,
    ).start()
    servers.callback(server.kill)
    assert server.process is not None
    token = server.register("bench@example.com")
    return Contender("BeRay", server.process.pid, [caller_of(server, token) for _ in range(AT_ONCE)])


def _start_peers(bench: Benchmark, servers: ExitStack, model_url: str, python: Path | NotHere) -> list[Contender]:
    peers = []
    for name, is_detached in ((f"Agno AgentOS {VERSION}", False), (f"Agno AgentOS {VERSION}, detached", True)):
        try:
            if isinstance(python, NotHere):
                raise python
            folder = bench.folder / ("detached" if is_detached else "agno")
            peer = servers.enter_context(running_agno(python, folder, model_url, is_detached=is_detached))
        except NotHere as reason:
            bench.skip(name, str(reason))
            continue
        clients: list[Client] = [AgnoClient(peer.base_url, is_detached=is_detached) for _ in range(AT_ONCE)]
        peers.append(Contender(name, peer.pid, clients))
    return peers


def _compare_first(bench: Benchmark, ours: Contender) -> None:
    caller = ours.clients[0]
    assert isinstance(caller, Caller), "ours"
    with running_twin(bench.folder) as twin:
        other = Caller(f"{twin.base_url}/twin", f"{twin.base_url}/twin/{{id}}/stream")
        other.first_event_ms()
        our_rounds, other_rounds = bench.rounds(TASKS, caller.first_event_ms, other.first_event_ms, share=0.4)
    bench.compare(
        f"create → first event seen, p50 of {len(our_rounds)}",
        unit="ms",
        ours=Side("BeRay", our_rounds),
        other=Side("a bare insert and stream", other_rounds),
        goal=Goal("≤", 2),
    )


def _measure_contenders(bench: Benchmark, ours: Contender, peers: list[Contender]) -> None:
    contenders = [ours, *peers]
    bench.samples(TASKS, *(_nothing_of(contender.run_one) for contender in contenders), share=0.6)
    at_once = contenders[:2] if bench.is_late(BATCHES_LATEST) else contenders
    for left in contenders[len(at_once) :]:
        bench.skip(f"{left.name}, {AT_ONCE} at once", "what came before took too long on this machine")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        bench.samples(BATCHES, *(_nothing_of(partial(contender.run_many, pool)) for contender in at_once))
    for peer in peers:
        _compare(bench, ours, peer)
    cpu = Side("BeRay, with the sandbox and the command in it", ours.cpu_seconds)
    goal = Goal("≤", MOST_CPU_SECONDS, of="figure")
    bench.note(f"a hello-world task, {AT_ONCE} at once: processor time", unit="s", ours=cpu, goal=goal)


def _nothing_of(measure: Callable[[], None]) -> Callable[[], list[float]]:
    """For a contender, who keeps what was found."""

    def measured() -> list[float]:
        measure()
        return []

    return measured


def _compare(bench: Benchmark, ours: Contender, peer: Contender) -> None:
    least, most = Goal("≥", 1), Goal("≤", 1)
    count = len(ours.finished_ms)

    def sides(found: Callable[[Contender], list[float]]) -> dict[str, Side]:
        return {"ours": Side(ours.name, found(ours)), "other": Side(peer.name, found(peer))}

    what = "a hello-world task"
    bench.compare(f"{what}, create → first event, p50 of {count}", unit="ms", **sides(lambda one: one.first_ms))
    finished = f"{what}, create → finished, p50 of {count}"
    bench.compare(finished, unit="ms", **sides(lambda one: one.finished_ms), goal=most)
    alone = [1000 / each for each in ours.finished_ms], [1000 / each for each in peer.finished_ms]
    bench.compare(
        f"{what}, one after the other",
        unit="tasks/s",
        ours=Side(ours.name, alone[0]),
        other=Side(peer.name, alone[1]),
        goal=least,
    )
    if not peer.per_second:
        return
    bench.compare(f"{what}, {AT_ONCE} at once", unit="tasks/s", **sides(lambda one: one.per_second), goal=least)
    cpu = f"{what}, {AT_ONCE} at once: processor time of the server and what it starts"
    bench.compare(cpu, unit="s", **sides(lambda one: one.cpu_seconds))


if __name__ == "__main__":
    main()
