"""The HTTP client under a provider's: its deadlines, how much it takes, and no proxy for this machine. Imports the HTTP
library.

A provider's client gathers an answer's bytes until an event of its stream is whole, however long that takes. So what
comes without the empty line that ends an event is bounded here, and the whole too.
"""

import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import httpx2

from beray.server.agent.models.choice import ModelChoice

CONNECT_TIMEOUT_SECONDS = 10
KEPT_CONNECTIONS: Final = 20  # that are idle, for the library's 5 s; in use are as many as runs ask
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MOST_EVENT_BYTES: Final = 8 << 20  # one event is a few hundred bytes; one with a whole answer in it is below this
MOST_EVENT_LINES: Final = 1000  # an event has two or three; Anthropic's client copies what has come with each line
MOST_BODY_BYTES: Final = 128 << 20  # 128 000 tokens, the longest answer of any model, in events of 1 KiB
EVENT_STREAM: Final = "text/event-stream"

_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\n\r\n")
_LONGEST_END: Final = 3


class AnswerTooLarge(ValueError):
    """A model's server sends more than is taken: what it answers can't be read, like what is no JSON."""


def timeout_of(choice: ModelChoice) -> httpx2.Timeout:
    """How long to connect, and how long the server may be silent."""
    return httpx2.Timeout(choice.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)


def http_client(choice: ModelChoice) -> httpx2.AsyncClient:
    """A client that asks no proxy for loopback, and bounds what it takes; who is given it closes it."""
    is_loopback = urlsplit(choice.base_url or "").hostname in LOOPBACK_HOSTS
    return httpx2.AsyncClient(
        verify=_trusted(),
        trust_env=not is_loopback,
        timeout=timeout_of(choice),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
        follow_redirects=True,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [_bound]},
    )


async def _bound(response: httpx2.Response) -> None:
    """Have a response, before anything of its body is read, bring no more than is taken."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"", "identity"}:
        raise AnswerTooLarge(f"compressed ({encoding[:20]}), which was not asked for and may hold any amount")
    assert isinstance(response.stream, httpx2.AsyncByteStream), "an async client gets such"
    is_event_stream = response.headers.get("content-type", "").startswith(EVENT_STREAM)
    response.stream = _Bounded(response.stream, is_event_stream=is_event_stream)


class _Bounded(httpx2.AsyncByteStream):
    """A response's body.

    Args:
        body: As the server sends it.
        is_event_stream: It consists of events; else all of it counts as one, of any number of lines.
    """

    def __init__(self, body: httpx2.AsyncByteStream, *, is_event_stream: bool) -> None:
        self._body = body
        self._is_event_stream = is_event_stream
        self._size = self._begun = self._lines = 0
        self._tail = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            self._note(piece)
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()

    def _note(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MOST_BODY_BYTES:
            raise AnswerTooLarge(f"more than {MOST_BODY_BYTES} bytes")
        if not self._is_event_stream:
            self._begun = self._size
        else:
            self._note_events(piece)
        if self._begun > MOST_EVENT_BYTES:
            raise AnswerTooLarge(f"more than {MOST_EVENT_BYTES} bytes without the end of an event")
        if self._lines > MOST_EVENT_LINES:
            raise AnswerTooLarge(f"more than {MOST_EVENT_LINES} lines without the end of an event")

    def _note_events(self, piece: bytes) -> None:
        """Count what has come since the last event ended; an end may be cut anywhere."""
        seen = self._tail + piece
        self._tail = seen[1 - _LONGEST_END :]
        end = max(seen.rfind(sign) for sign in _EVENT_ENDS)
        if end >= 0:
            self._begun = self._lines = 0
            piece = seen[end + 2 :]
        self._begun += len(piece)
        self._lines += piece.count(b"\n") + piece.count(b"\r")


@cache
def _trusted() -> ssl.SSLContext:
    """Whose certificates count. Made once: it takes 10 ms of processor time."""
    return httpx2.create_ssl_context()
