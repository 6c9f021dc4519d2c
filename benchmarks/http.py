"""GET /tasks/{id}?events=none through the whole stack, against bare Starlette and against idiomatic FastAPI.

The servers run in processes of their own under uvicorn. The other two make two look-ups for each request, on the same
database: whose token, which task. BeRay as shipped remembers a token for a second, so that it makes one; a row of its
own is of a BeRay that looks each token up (`looking_up_server.py`), on a database with the same tasks. What counts is
the server's processor time per request, which no load generator can distort; requests per second are shown beside it.
GET /tasks?limit=20 likewise, without a goal.
"""

import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from benchmarks.measure import Benchmark, Goal, Side, cpu_seconds
from benchmarks.twin import running
from tests.support.server import ServerProcess

ROUNDS = 5
SECONDS = 0.7
CONNECTIONS = 8
LISTED = 20
GOAL = "写一个打印 hello world 的 Python 脚本"
BERAY = "BeRay, a token remembered for a second"
LOOKING_UP = "BeRay, each token looked up"
STARLETTE = "bare Starlette and msgspec, each token looked up"
FASTAPI = "idiomatic FastAPI, each token looked up"


class LookingUpServer(ServerProcess):
    """BeRay without its memory of tokens."""

    program = (sys.executable, "-m", "benchmarks.looking_up_server")


class Target:
    """A server and the request it gets; `rates` are the requests per second of each round."""

    def __init__(self, url: str, token: str, pid: int) -> None:
        self.url = url
        self.token = token
        self.pid = pid
        self.rates: list[float] = []
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        path = url[url.index("/", len("http://")) :]
        self._request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    def answer(self) -> object:
        """What it answers, without the times, which each side writes in its own way."""
        answer = requests.get(self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)
        answer.raise_for_status()
        tasks = answer.json()
        told = tasks if isinstance(tasks, list) else [tasks]
        return [{name: value for name, value in task.items() if not name.endswith("_at")} for task in told]

    def measure(self) -> float:
        """One round: requests per second of the server's processor time."""
        before, started = cpu_seconds(self.pid), time.perf_counter()
        count = asyncio.run(self._load())
        elapsed, used = time.perf_counter() - started, cpu_seconds(self.pid) - before
        self.rates.append(count / elapsed)
        return count / used

    async def _load(self) -> int:
        deadline = time.perf_counter() + SECONDS
        return sum(await asyncio.gather(*(self._ask_until(deadline) for _ in range(CONNECTIONS))))

    async def _ask_until(self, deadline: float) -> int:
        reader, writer = await asyncio.open_connection(*self._address)
        count = 0
        while time.perf_counter() < deadline:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            count += 1
        writer.close()
        return count


def main() -> None:
    """Measure."""
    with Benchmark("http") as bench, ExitStack() as servers:
        server = ServerProcess(bench.folder / "data")
        ours = _start(servers, server)
        looking_up = _start(servers, LookingUpServer(bench.folder / "looking-up"))
        database = str(server.data_dir / "beray.db")
        others = [
            Site(side.base_url, ours.token, side.pid, ours.task_id)
            for side in (
                servers.enter_context(running("benchmarks.http_sides", "starlette", database)),
                servers.enter_context(running("benchmarks.http_sides", "fastapi", database)),
            )
        ]
        _compare_one(bench, [_one(ours), *(_one(site) for site in others), _one(looking_up)])
        _compare_lists(bench, [site.target(f"/tasks?limit={LISTED}") for site in (ours, *others)])


@dataclass(frozen=True)
class Site:
    """A server with tasks, one of which is asked for."""

    base_url: str
    token: str
    pid: int
    task_id: int

    def target(self, path: str) -> Target:
        """What is asked for there."""
        return Target(self.base_url + path, self.token, self.pid)


def _start(servers: ExitStack, server: ServerProcess) -> Site:
    """A server of ours, with tasks."""
    servers.callback(server.kill)
    server.start()
    token = server.register("bench@example.com")
    api = f"{server.base_url}/api/v1"
    task_id = min(_create(api, token) for _ in range(LISTED))
    assert server.process is not None
    return Site(api, token, server.process.pid, task_id)


def _create(api: str, token: str) -> int:
    header = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{api}/tasks", json={"goal": GOAL, "hold": True}, headers=header, timeout=30)
    answer.raise_for_status()
    return int(answer.json()["id"])


def _one(site: Site) -> Target:
    is_ours = site.base_url.endswith("/api/v1")  # ours adds a task's events unless told not to
    return site.target(f"/tasks/{site.task_id}{'?events=none' if is_ours else ''}")


def _compare_one(bench: Benchmark, targets: list[Target]) -> None:
    ours, starlette, fastapi, looking_up = _measured(bench, targets)
    what = "GET /tasks/{id}, requests per second of the server's processor time"
    for beray in (Side(BERAY, ours), Side(LOOKING_UP, looking_up)):
        bench.compare(what, unit="requests/s", ours=beray, other=Side(STARLETTE, starlette), goal=Goal("≥", 0.75))
        bench.compare(what, unit="requests/s", ours=beray, other=Side(FASTAPI, fastapi), goal=Goal("≥", 1.6))
    bench.compare(
        f"GET /tasks/{{id}}, requests per second, {CONNECTIONS} connections, load generator on the same cores",
        unit="requests/s",
        ours=Side(BERAY, targets[0].rates),
        other=Side(STARLETTE, targets[1].rates),
    )


def _compare_lists(bench: Benchmark, targets: list[Target]) -> None:
    ours, starlette, fastapi = _measured(bench, targets)
    what = f"GET /tasks?limit={LISTED}, requests per second of the server's processor time"
    beray = Side(BERAY, ours)
    bench.compare(what, unit="requests/s", ours=beray, other=Side(STARLETTE, starlette))
    bench.compare(what, unit="requests/s", ours=beray, other=Side(FASTAPI, fastapi))


def _measured(bench: Benchmark, targets: list[Target]) -> list[list[float]]:
    answers = [target.answer() for target in targets]
    assert answers[1:] == answers[:-1], answers  # what is compared is the same work
    for target in targets:
        target.measure()  # warms up
        target.rates.clear()
    return bench.rounds(ROUNDS, *(target.measure for target in targets))


if __name__ == "__main__":
    main()
