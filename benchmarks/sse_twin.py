"""The other side of `sse` that people write first: sse-starlette, a queue for each watcher, JSON encoded for each.

    python -m benchmarks.sse_twin

Listens on a free loopback port, which it prints, and ends when its standard input does.
POST /publish/{id}: an event for everybody who watches `id`. GET /watch/{id}: these events.
"""

import asyncio
import json
import select
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

START_SECONDS: Final = 20.0


@dataclass(frozen=True)
class SseTwin:
    """A running one."""

    address: tuple[str, int]
    pid: int


@contextmanager
def running_sse_twin() -> Iterator[SseTwin]:
    """One in a process of its own, for as long as the block lasts."""
    with Popen([sys.executable, "-m", "benchmarks.sse_twin"], stdin=PIPE, stdout=PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            port = process.stdout.readline().decode().strip() if ready else ""
            if not port:
                raise RuntimeError("the twin did not start")
            yield SseTwin(("127.0.0.1", int(port)), process.pid)
        finally:
            process.kill()


def build_app() -> Starlette:
    """The two routes."""
    from sse_starlette import EventSourceResponse  # absent, the side is skipped

    watchers: defaultdict[str, set[asyncio.Queue[dict[str, Any]]]] = defaultdict(set)

    async def publish(request: Request) -> Response:
        event = await request.json()
        for queue in watchers[request.path_params["id"]]:
            queue.put_nowait(event)
        return Response(status_code=202)

    async def watch(request: Request) -> Response:
        own = watchers[request.path_params["id"]]

        async def events() -> AsyncIterator[dict[str, str]]:
            queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            own.add(queue)
            try:
                yield {"comment": "here"}
                while True:
                    event = await queue.get()
                    yield {"id": str(event["number"]), "event": event["type"], "data": json.dumps(event)}
            finally:
                own.discard(queue)

        return EventSourceResponse(events())

    return Starlette(
        routes=[
            Route("/publish/{id}", publish, methods=["POST"]),
            Route("/watch/{id}", watch),
        ]
    )


def main() -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(build_app(), log_level="warning", lifespan="off", access_log=False)
    server = uvicorn.Server(config)

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])  # on uvloop, as ours


if __name__ == "__main__":
    main()
