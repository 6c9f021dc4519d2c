"""The other side of the HTTP benchmarks: a bare Starlette server that does the same work with nothing around it.

    python -m benchmarks.twin FOLDER [DATABASE]

Listens on a free loopback port, which it writes to FOLDER/port, and ends when its standard input does.

- GET /tasks/{id}: the two look-ups of ours (whose token is it; the user's task), in the same DATABASE, with sqlite3.
- POST /twin: inserts a row, commits (synchronous=FULL). GET /twin/{id}/stream: that row as a server-sent event.
"""

import hashlib
import json
import select
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

START_SECONDS = 20.0
USER_BY_TOKEN = (
    "SELECT u.id, u.email, u.created_at FROM session s JOIN user_account u ON u.id = s.user_id"
    " WHERE s.token_hash = ? AND s.revoked_at IS NULL AND s.expires_at > ?"
)
TASK = (
    "SELECT id, goal, status, created_at, updated_at, started_at, finished_at, result, error, model, model_kind, tools,"
    " usage, last_seq, run, attempt, stop_requested, question FROM task"
    " WHERE id = ? AND user_id = ? AND deleted_at IS NULL"
)


class Twin:
    """A running twin: its address and process number."""

    def __init__(self, base_url: str, pid: int) -> None:
        self.base_url = base_url
        self.pid = pid


@contextmanager
def running_twin(folder: Path, database: Path | None = None) -> Iterator[Twin]:
    """A twin in a process of its own, for as long as the block lasts."""
    command = [sys.executable, "-m", "benchmarks.twin", str(folder), *([str(database)] if database else [])]
    with Popen(command, stdin=PIPE, stdout=PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            port = process.stdout.readline().decode().strip() if ready else ""
            if not port:
                raise RuntimeError("the twin did not start")
            yield Twin(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.kill()


def build_app(folder: Path, database: Path | None) -> Starlette:
    """The twin's routes."""
    reader = None if database is None else sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    writer = sqlite3.connect(folder / "twin.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        writer.execute(f"PRAGMA {pragma}")
    writer.execute("CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, frame BLOB NOT NULL)")

    async def get_task(request: Request) -> Response:
        assert reader is not None, "started without a database"
        token = request.headers["authorization"].removeprefix("Bearer ")
        hashed = hashlib.sha256(token.encode()).digest()
        user = reader.execute(USER_BY_TOKEN, (hashed, time.time_ns() // 1_000_000)).fetchone()
        row = reader.execute(TASK, (int(request.path_params["id"]), user[0])).fetchone()
        return Response(orjson.dumps(_task(row)), media_type="application/json")

    async def create(request: Request) -> Response:
        goal = (await request.json())["goal"]
        body = json.dumps({"v": 1, "seq": 1, "type": "task.created", "goal": goal})
        frame = f"id: 1\nevent: task.created\ndata: {body}\n\n".encode()
        row_id = writer.execute("INSERT INTO event (frame) VALUES (?)", (frame,)).lastrowid
        return Response(orjson.dumps({"id": row_id}), status_code=201, media_type="application/json")

    async def stream(request: Request) -> Response:
        row = writer.execute("SELECT frame FROM event WHERE id = ?", (int(request.path_params["id"]),)).fetchone()

        async def frames() -> AsyncIterator[bytes]:
            yield row[0]

        return StreamingResponse(frames(), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/tasks/{id}", get_task),
            Route("/twin", create, methods=["POST"]),
            Route("/twin/{id}/stream", stream),
        ]
    )


def _task(row: tuple[Any, ...]) -> dict[str, Any]:
    names = (
        "id", "goal", "status", "created_at", "updated_at", "started_at", "finished_at", "result", "error", "model",
        "model_kind", "tools", "usage", "last_seq", "run", "attempt", "stop_requested", "question",
    )  # fmt: skip
    task = dict(zip(names, row, strict=True))
    for name in ("error", "tools", "usage", "question"):
        task[name] = None if task[name] is None else orjson.loads(task[name])
    return task


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    app = build_app(folder, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])  # on uvloop, as ours


if __name__ == "__main__":
    main()
