"""A scripted HTTP server on a loopback port: each request gets the next answer of the script.

It can do what a decent server never does: cut an answer, say nothing, close without a word.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(BaseHTTPRequestHandler):
    """What an answer of the script works with."""

    protocol_version = "HTTP/1.1"
    server: "LoopbackServer"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        received = Received(self.command, parts.path, parse_qs(parts.query), headers, body)
        self.server.next_answer(received)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  # the parent looks for these names

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def write_chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def wait_for_close(self) -> None:
        """Wait until the client closes its end."""
        self.connection.settimeout(WAIT_SECONDS)
        with suppress(OSError):
            self.rfile.read(1)
        self.close_connection = True
        self.server.client_left.set()


Answer = Callable[[Exchange], None]


class LoopbackServer(ThreadingHTTPServer):
    """The server; `url` is where, `received` what came."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.received: list[Received] = []
        self.client_left = threading.Event()
        self.connections = 0
        self._script: list[Answer] = []
        self._repeated: Answer | None = None
        self._lock = threading.Lock()

    def script(self, *answers: Answer) -> None:
        """Give these answers, in order, one a request."""
        self._script.extend(answers)

    def always(self, answer: Answer) -> None:
        """Give this answer once the script is used up."""
        self._repeated = answer

    def next_answer(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            if self._script:
                return self._script.pop(0)
        return self._repeated or reply(599, {"detail": "the test's script has no answer for this request"})

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what some tests are about."""


@contextmanager
def loopback_server(tls: ssl.SSLContext | None = None) -> Iterator[LoopbackServer]:
    """A running server, until the end of the block."""
    server = LoopbackServer()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.url = server.url.replace("http://", "https://")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT_SECONDS)


def reply(status: int = 200, content: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """A whole answer: `content` is JSON, or bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    kind = "text/plain" if isinstance(content, bytes) else "application/json"

    def answer(exchange: Exchange) -> None:
        exchange.begin(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})})
        if exchange.command != "HEAD":
            exchange.wfile.write(body)

    return answer


def old_token_refused(content: Any, *, together: int) -> Answer:
    """Take every token but `old`, which is refused once so many calls with it are here."""
    all_here = threading.Barrier(together)

    def answer(exchange: Exchange) -> None:
        if exchange.headers["Authorization"] == "Bearer old":
            all_here.wait(WAIT_SECONDS)
            reply(401, {})(exchange)
        else:
            reply(200, content)(exchange)

    return answer


def drop(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.close_connection = True


def silence(exchange: Exchange) -> None:
    """Never answer."""
    exchange.wait_for_close()


def cut_head(exchange: Exchange) -> None:
    """Close within the head, at the end of a line."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    exchange.close_connection = True


def cut_body(exchange: Exchange) -> None:
    """Promise 100 bytes, give 5, close."""
    exchange.begin(200, {"Content-Type": "application/json", "Content-Length": "100"})
    exchange.wfile.write(b'{"a":')
    exchange.close_connection = True


@dataclass
class events:  # noqa: N801  # reads like `reply`
    """An event stream: these chunks, then its end.

    Args:
        chunks: Bytes, one HTTP chunk each.
        end: `clean`, `cut` (the connection breaks), `silent` (until the client goes) or `open` (the test goes on).
    """

    chunks: list[bytes]
    end: str = "clean"
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, exchange: Exchange) -> None:
        kind = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        exchange.begin(200, {**kind, **self.headers})
        for chunk in self.chunks:
            exchange.write_chunk(chunk)
            exchange.wfile.flush()
        if self.end == "clean":
            exchange.wfile.write(b"0\r\n\r\n")
        elif self.end == "cut":
            exchange.close_connection = True
        elif self.end == "silent":
            exchange.wait_for_close()
