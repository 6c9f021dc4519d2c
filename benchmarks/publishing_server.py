"""`beray serve` as it is shipped, and a door by which a benchmark has events appended to the logs of tasks.

    python -m benchmarks.publishing_server serve --port 0 --data FOLDER

The door is a Unix socket in the data folder. A line with a `Plan` comes in, and one with how long it took goes out when
its events are committed. They go through the application's own `EventLog`, as an agent's do; no model is needed.
"""

import asyncio
import json
import sqlite3
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from beray.cli.main import main
from beray.server.app import App
from beray.server.events.log import EventLog, NewEvent
from tests.support.server import ServerProcess

DOOR: Final = "publish.sock"


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


async def _publish(events: EventLog, plan: Plan) -> None:
    """At most `in_flight` at once; with a pace, each at its time."""
    indexes = iter(range(plan.count))
    tasks = [int(target) for target in plan.targets]
    started = time.monotonic()

    async def work() -> None:
        for index in indexes:
            early = plan.due(index, started) - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            await events.append(tasks[index % len(tasks)], [NewEvent("tool.output", plan.fields(index))])

    await asyncio.gather(*(work() for _ in range(plan.in_flight)))


async def _open_door(app: App) -> asyncio.Server:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                started = time.monotonic()
                await _publish(app.events, Plan(**json.loads(line)))
                writer.write(json.dumps({"seconds": time.monotonic() - started}).encode() + b"\n")

    return await asyncio.start_unix_server(talk, app.settings.data_dir / DOOR, limit=1 << 20)


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
