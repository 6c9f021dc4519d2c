"""GET /tasks/{id}?events=none through the whole stack, against a bare Starlette route that makes the same two look-ups.

Both servers run in processes of their own under uvicorn, on the same database. What counts is the server's processor
time per request, which no load generator can distort; requests per second are shown beside it.
"""

import asyncio
import time
from urllib.parse import urlsplit

import requests

from benchmarks.measure import Benchmark, Goal, Side, cpu_seconds
from benchmarks.twin import running_twin
from tests.support.server import ServerProcess

ROUNDS = 7
SECONDS = 2.0
CONNECTIONS = 8
GOAL = "写一个打印 hello world 的 Python 脚本"


class Target:
    """A server and the request it gets; `rates` are the requests per second of each round."""

    def __init__(self, url: str, token: str, pid: int) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 0)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self.pid = pid
        self.rates: list[float] = []

    def measure(self) -> float:
        """One round: microseconds of the server's processor time per request."""
        before, started = cpu_seconds(self.pid), time.perf_counter()
        count = asyncio.run(self._load())
        elapsed, used = time.perf_counter() - started, cpu_seconds(self.pid) - before
        self.rates.append(count / elapsed)
        return used / count * 1e6

    async def _load(self) -> int:
        deadline = time.perf_counter() + SECONDS
        return sum(await asyncio.gather(*(self._ask_until(deadline) for _ in range(CONNECTIONS))))

    async def _ask_until(self, deadline: float) -> int:
        reader, writer = await asyncio.open_connection(*self.address)
        count = 0
        while time.perf_counter() < deadline:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            count += 1
        writer.close()
        return count


def main() -> None:
    """Measure."""
    with Benchmark("http") as bench:
        server = ServerProcess(bench.folder / "data").start()
        try:
            token = server.register("bench@example.com")
            api = f"{server.base_url}/api/v1"
            body = {"goal": GOAL, "hold": True}
            header = {"Authorization": f"Bearer {token}"}
            task = requests.post(f"{api}/tasks", json=body, headers=header, timeout=30).json()
            with running_twin(bench.folder, server.data_dir / "beray.db") as twin:
                assert server.process is not None
                ours = Target(f"{api}/tasks/{task['id']}?events=none", token, server.process.pid)
                other = Target(f"{twin.base_url}/tasks/{task['id']}", token, twin.pid)
                _compare(bench, ours, other)
        finally:
            server.kill()


def _compare(bench: Benchmark, ours: Target, other: Target) -> None:
    for target in (ours, other):
        target.measure()  # warms up
        target.rates.clear()
    our_costs, other_costs = bench.rounds(ROUNDS, ours.measure, other.measure)
    bench.compare(
        "GET /tasks/{id}, requests per second of the server's processor time",
        unit="requests/s",
        ours=Side("BeRay", [1e6 / cost for cost in our_costs]),
        other=Side("bare Starlette, same look-ups", [1e6 / cost for cost in other_costs]),
        goal=Goal("≥", 0.75),
    )
    bench.compare(
        f"GET /tasks/{{id}}, requests per second, {CONNECTIONS} connections, load generator on the same cores",
        unit="requests/s",
        ours=Side("BeRay", ours.rates),
        other=Side("bare Starlette, same look-ups", other.rates),
    )


if __name__ == "__main__":
    main()
