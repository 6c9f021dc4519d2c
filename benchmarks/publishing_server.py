"""`beray serve` as it is shipped, and a door by which a benchmark has events appended to the logs of tasks.

    python -m benchmarks.publishing_server serve --port 0 --data FOLDER

The door is a Unix socket in the data folder. A line with a `Plan` comes in, and one with how long it took goes out when
its events are committed. They go through the application's own `EventLog`, as an agent's do; no model is needed. A line
that asks for a task's watchers is answered with how many there are, and how many of them are live.
"""

import asyncio
import json
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from benchmarks.measure import SERVER_CORE, on_core
from benchmarks.publishers import Plan, Streams
from beray.cli.main import main
from beray.server.app import App
from beray.server.events.log import EventLog, NewEvent
from tests.support.server import ServerProcess

DOOR: Final = "publish.sock"
ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Watching:
    """A task's watchers: how many there are, and how many are live; the others read the store at their own pace."""

    members: int
    live: int


class PublishingServer(ServerProcess):
    """A server with a door."""

    program = (sys.executable, "-m", "benchmarks.publishing_server")

    @property
    def door(self) -> Path:
        """Where its plans go in."""
        return self.data_dir / DOOR

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.base_url)
        return parts.hostname or "", parts.port or 0

    def watching(self, task: str) -> Watching:
        """Who watches a task now."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(ANSWER_SECONDS)
            asking.connect(str(self.door))
            asking.sendall(json.dumps({"watchers_of": int(task)}).encode() + b"\n")
            with asking.makefile("rb") as answer:
                return Watching(**json.loads(answer.readline()))

    def streams(self, token: str, tasks: Sequence[str], *, after: int = 0) -> Streams:
        """The streams of these tasks; `{}` stands for one that is named later."""
        ask = "GET /api/v1/tasks/{}/stream?after={} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n"
        heads = tuple(ask.format(task, after, token) for task in tasks)
        assert self.process is not None
        return Streams(self.address, heads, (self.process.pid,), door=str(self.door))

    def make_tasks(self, token: str, count: int) -> list[str]:
        """Tasks that never run: one made as users do, and copies of its rows, which take no time."""
        answer = requests.post(
            f"{self.base_url}/api/v1/tasks",
            json={"goal": "Be watched.", "hold": True},
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        answer.raise_for_status()
        first = int(answer.json()["id"])
        with closing(sqlite3.connect(self.data_dir / "beray.db", timeout=15)) as database, database:
            return [str(first), *(str(_copy_task(database, first)) for _ in range(count - 1))]


def _copy_task(database: sqlite3.Connection, task_id: int) -> int:
    """Copy a task's row and events; the copy's id."""
    names = _columns(database, "task", but="id")
    row = database.execute(f"INSERT INTO task ({names}) SELECT {names} FROM task WHERE id = ?", (task_id,))
    assert row.lastrowid is not None
    names = _columns(database, "event", but="task_id")
    copy = f"INSERT INTO event (task_id, {names}) SELECT ?, {names} FROM event WHERE task_id = ?"
    database.execute(copy, (row.lastrowid, task_id))
    return row.lastrowid


def _columns(database: sqlite3.Connection, table: str, *, but: str) -> str:
    return ", ".join(row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != but)


@contextmanager
def running_server(folder: Path) -> Iterator[PublishingServer]:
    """A server that lets a user watch as much as they like, on the core of servers."""
    server = PublishingServer(folder / "data", max_streams_per_user=0)
    try:
        with on_core(SERVER_CORE):
            server.start()
        yield server
    finally:
        server.kill()


async def _publish(events: EventLog, plan: Plan) -> None:
    """In order; at most `in_flight` are not committed yet; with a pace, each at its time."""
    places = asyncio.Semaphore(plan.in_flight)
    started = time.monotonic()

    async def append(index: int) -> None:
        task_id = int(plan.targets[index % len(plan.targets)])
        try:
            await events.append(task_id, [NewEvent("tool.output", plan.fields(index))])
        finally:
            places.release()

    async with asyncio.TaskGroup() as appending:
        for index in range(plan.count):
            await places.acquire()
            early = plan.due(index, started) - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            appending.create_task(append(index))


async def _open_door(app: App) -> asyncio.Server:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(app, json.loads(line))).encode() + b"\n")

    return await asyncio.start_unix_server(talk, app.settings.data_dir / DOOR, limit=1 << 20)


async def _answer(app: App, asked: dict[str, Any]) -> dict[str, Any]:
    if "watchers_of" in asked:
        feed = app.hub._feeds.get(asked["watchers_of"])
        return {"members": feed.members, "live": len(feed.live)} if feed is not None else {"members": 0, "live": 0}
    started = time.monotonic()
    await _publish(app.events, Plan(**asked))
    return {"seconds": time.monotonic() - started}


def _add_door() -> None:
    doors: list[asyncio.Server] = []
    plain_open = App.open

    async def open_with_door(app: App) -> None:
        await plain_open(app)
        doors.append(await _open_door(app))

    App.open = open_with_door  # type: ignore[method-assign]  # the application is made by `serve`, deep inside


if __name__ == "__main__":
    _add_door()
    main()
