"""A whole task over HTTP: create → first event seen, create → finished, and tasks per second.

Rules mode, so that no model's speed counts: the server, the engine, the agent's loop, the sandbox (two tool calls:
write a script, run it) and the stream are real. The twin of "first event" commits one row and streams it back: POST,
then GET, with the same client, to a bare Starlette server.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.measure import Benchmark, Goal, Side
from benchmarks.twin import running_twin
from tests.support.server import ServerProcess

GOAL = "写一个打印 hello world 的 Python 脚本"
FIRSTS = 20
TASKS = 20
AT_ONCE = 4
BATCHES = 5
EACH = 2


class Caller:
    """A plain client of one server: POST a goal, read the stream. `requests.Session`, as anybody would."""

    def __init__(self, create_url: str, stream_url: str, token: str = "") -> None:
        self._create_url = create_url
        self._stream_url = stream_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def first_event_ms(self) -> float:
        """From the request that creates to the first event in hand."""
        started = time.perf_counter()
        events = self._run()
        next(events)
        elapsed = time.perf_counter() - started
        for _ in events:
            pass
        return elapsed * 1000

    def finished_ms(self) -> float:
        """From the request that creates to the event that ends the task, which must have completed."""
        started = time.perf_counter()
        *_, last = self._run()
        assert (last["type"], last["status"]) == ("task.finished", "completed"), last
        return (time.perf_counter() - started) * 1000

    def _run(self) -> Iterator[dict[str, object]]:
        answer = self._session.post(self._create_url, json={"goal": GOAL}, timeout=30)
        answer.raise_for_status()
        url = self._stream_url.format(id=answer.json()["id"])
        with self._session.get(url, stream=True, timeout=30) as stream:
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])


def main() -> None:
    """Measure."""
    with Benchmark("tasks") as bench:
        server = ServerProcess(bench.folder / "data", max_running_tasks_per_user=AT_ONCE).start()
        try:
            token = server.register("bench@example.com")
            api = f"{server.base_url}/api/v1"
            ours = Caller(f"{api}/tasks", f"{api}/tasks/{{id}}/stream", token)
            ours.finished_ms()  # loads the agent's libraries
            with running_twin(bench.folder) as twin:
                other = Caller(f"{twin.base_url}/twin", f"{twin.base_url}/twin/{{id}}/stream")
                other.first_event_ms()
                _compare_first(bench, ours, other)
            _measure_whole(bench, ours)
            callers = [Caller(f"{api}/tasks", f"{api}/tasks/{{id}}/stream", token) for _ in range(AT_ONCE)]
            _measure_rate(bench, callers)
        finally:
            server.kill()


def _compare_first(bench: Benchmark, ours: Caller, other: Caller) -> None:
    our_rounds, other_rounds = bench.rounds(FIRSTS, ours.first_event_ms, other.first_event_ms, share=0.5)
    bench.compare(
        f"create → first event seen, p50 of {len(our_rounds)}",
        unit="ms",
        ours=Side("BeRay", our_rounds),
        other=Side("a bare insert and stream", other_rounds),
        goal=Goal("≤", 2),
    )


def _measure_whole(bench: Benchmark, ours: Caller) -> None:
    (rounds,) = bench.rounds(TASKS, ours.finished_ms, share=0.8)
    what = f"hello-world task in rules mode, create → finished, p50 of {len(rounds)}"
    bench.note(what, unit="ms", ours=Side("BeRay", rounds))


def _measure_rate(bench: Benchmark, callers: list[Caller]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def batch() -> float:
            started = time.perf_counter()
            list(pool.map(lambda caller: [caller.finished_ms() for _ in range(EACH)], callers))
            return AT_ONCE * EACH / (time.perf_counter() - started)

        (rounds,) = bench.rounds(BATCHES, batch)
    bench.note(f"hello-world tasks in rules mode, {AT_ONCE} at once", unit="tasks/s", ours=Side("BeRay", rounds))


if __name__ == "__main__":
    main()
