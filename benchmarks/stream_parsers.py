"""Other parsers of event streams, each as its own client uses it: bytes in chunks to events, of which the data counts.

The fastest of those found (README.md lists them). Each gets the same JSON parser, so that it is the stream's parsing
that differs.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import httpx
import requests
import urllib3
from httpx_sse import EventSource
from ld_eventsource.actions import Event
from ld_eventsource.reader import _BufferedLineReader, _SSEReader

from beray.protocol.responses import parse_json
from beray.protocol.sse import EventStreamDecoder

Decode = Callable[[Sequence[bytes]], int]
"""Decodes the chunks of a stream; how many events there were."""


def ours(chunks: Sequence[bytes]) -> int:
    """As `protocol/streams.py` does it."""
    decoder = EventStreamDecoder()
    return sum(parse_json(event.raw_data)["v"] for chunk in chunks for event in decoder.feed(chunk))


def httpx_sse(chunks: Sequence[bytes]) -> int:
    """`EventSource.iter_sse` on a response of httpx."""
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=_Stream(chunks))
    return sum(parse_json(event.data)["v"] for event in EventSource(response).iter_sse())


class _Stream(httpx.SyncByteStream):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


def launchdarkly(chunks: Sequence[bytes]) -> int:
    """The reader inside launchdarkly-eventsource, without the client around it."""
    events = _SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments()
    return sum(parse_json(event.data)["v"] for event in events if isinstance(event, Event))


def iter_lines(chunks: Sequence[bytes]) -> int:
    """What one writes first, and no parser: it knows nothing but `data:` lines, and cuts at other line ends too."""
    response = requests.Response()
    response.raw = urllib3.HTTPResponse(io.BytesIO(b"".join(chunks)), preload_content=False)
    lines = response.iter_lines(chunk_size=len(chunks[0]))
    return sum(json.loads(line[6:])["v"] for line in lines if line.startswith(b"data: "))


OTHERS: Final = {
    "httpx-sse": httpx_sse,
    "launchdarkly-eventsource": launchdarkly,
    "iter_lines and json.loads": iter_lines,
}
