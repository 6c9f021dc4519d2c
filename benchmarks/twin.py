"""The other side of `tasks.py`: a bare Starlette server that stores a row and streams it back, with nothing around it.

    python -m benchmarks.twin FOLDER

Listens on a free loopback port, which it prints, and ends when its standard input does.

- POST /twin: inserts a row, commits (synchronous=FULL). GET /twin/{id}/stream: that row as a server-sent event.
"""

import json
import select
import socket
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

START_SECONDS = 20.0


class Twin:
    """A running twin: its address and process number."""

    def __init__(self, base_url: str, pid: int) -> None:
        self.base_url = base_url
        self.pid = pid


@contextmanager
def running_twin(folder: Path) -> Iterator[Twin]:
    """A twin in a process of its own, for as long as the block lasts."""
    with running("benchmarks.twin", str(folder)) as twin:
        yield twin


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Twin]:
    """A module that calls `serve`, in a process of its own, for as long as the block lasts."""
    with Popen([sys.executable, "-m", module, *arguments], stdin=PIPE, stdout=PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            port = process.stdout.readline().decode().strip() if ready else ""
            if not port:
                raise RuntimeError(f"{module} did not start")
            yield Twin(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.kill()


def build_app(folder: Path) -> Starlette:
    """The twin's routes."""
    writer = sqlite3.connect(folder / "twin.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        writer.execute(f"PRAGMA {pragma}")
    writer.execute("CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, frame BLOB NOT NULL)")

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
            Route("/twin", create, methods=["POST"]),
            Route("/twin/{id}/stream", stream),
        ]
    )


def serve(app: ASGIApp) -> None:
    """Serve until standard input ends; on uvloop, as ours."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


def main() -> None:
    """Serve until standard input ends."""
    serve(build_app(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
