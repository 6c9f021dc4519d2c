"""The least an HTTP server can do, so that what is measured is the client: answers from memory, a sink for uploads.

    python -m benchmarks.bare_server

Listens on a free loopback port, which it prints, and ends when its standard input does.

- GET: 1 KB of JSON; /files/content: FILE_BYTES of zeros, with their SHA-256 as a BeRay server tells it.
- PUT: takes the body and forgets it.
"""

import asyncio
import json
import select
import socket
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Final, cast

import uvloop

FILE_BYTES: Final = 1 << 30
START_SECONDS: Final = 20.0
PIECE: Final = bytes(256 * 1024)

JSON: Final = json.dumps(
    {"id": 1, "goal": "写一个打印 hello world 的 Python 脚本", "status": "completed", "result": "x" * 900},
    ensure_ascii=False,
).encode()


def _head(size: int, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()


ANSWER: Final = _head(len(JSON), "application/json") + JSON
TAKEN: Final = _head(2, "application/json") + b"{}"
FILE_SHA256: Final = bytes.fromhex("49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14")
FILE_HEAD: Final = _head(
    FILE_BYTES, f"application/octet-stream\r\nRepr-Digest: sha-256=:{b64encode(FILE_SHA256).decode()}:"
)


@contextmanager
def running_bare_server() -> Iterator[str]:
    """Its base URL; it runs in a process of its own for as long as the block lasts."""
    with Popen([sys.executable, "-m", "benchmarks.bare_server"], stdin=PIPE, stdout=PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            port = process.stdout.readline().decode().strip() if ready else ""
            if not port:
                raise RuntimeError("the bare server did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


class Connection(asyncio.Protocol):
    """One client's; a request at a time, as clients send them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._head = b""
        self._left = 0
        self._can_write = asyncio.Event()
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._take_body(len(data))
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end == -1:
            return
        head, rest = self._head[:end].lower(), len(self._head) - end - 4
        self._head = b""
        if head.startswith(b"put "):
            self._left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._take_body(rest)
        elif b"/files/content" in head.partition(b"\r\n")[0]:
            self._sending = asyncio.ensure_future(self._send_file())
        else:
            self._transport.write(ANSWER)

    def _take_body(self, size: int) -> None:
        self._left -= size
        if not self._left:
            self._transport.write(TAKEN)

    async def _send_file(self) -> None:
        self._transport.write(FILE_HEAD)
        for _ in range(FILE_BYTES // len(PIECE)):
            await self._can_write.wait()
            self._transport.write(PIECE)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._can_write.set()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    await loop.create_server(Connection, sock=listener)
    print(listener.getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
