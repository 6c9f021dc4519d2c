"""Server-sent events: the server's encoder and the clients' incremental decoder. Bytes and values only.

Source: WHATWG HTML, "Server-sent events" (parsing and interpreting an event stream). Two points that bite:
lines end at CR, LF or CRLF and at nothing else, so splitting is done on bytes (`str.splitlines` would also cut at
U+2028, which JSON text may hold); and an id counts only once its event is whole, so a cut frame moves no cursor.
"""

import re
from functools import partial
from typing import Final, NamedTuple, cast

from beray.exceptions import EventTooLarge

RETRY_LINE: Final = b"retry: 1000\n\n"
"""First bytes of a stream: clients wait 1000 ms before they reconnect."""

HEARTBEAT: Final = b":\n\n"
"""A comment, sent after `HEARTBEAT_SECONDS` of silence; it is no event, it proves that the connection lives."""

HEARTBEAT_SECONDS: Final = 15

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # far above the server's own caps; keeps a hostile stream out of memory

# What `encode_event` makes. The quantifiers give nothing back (`+` behind them): hostile bytes cost linear time.
_FRAME = rb"id: ([^\n\0]*+)\nevent: (.++)\ndata: (.++)\n\n"
_find_frames = re.compile(_FRAME).findall
_match_frames = re.compile(b"(?:%b)*+" % _FRAME).match

_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_DIGITS = 9  # 11 days in ms; int() of a very long text would be slow, then an error


def encode_event(seq: int, type: str, body: bytes) -> bytes:
    """The frame of one event: `id: 7`, `event: task.started`, `data: {...}`, blank line.

    Args:
        seq: The event's number, its id on the wire.
        type: The event's type, ASCII.
        body: JSON on one line.

    Raises:
        ValueError: `body` or `type` holds a line break, which would end the field.
    """
    name = type.encode("ascii")
    if b"\n" in body or b"\r" in body or b"\n" in name or b"\r" in name:
        raise ValueError(f"event {seq} ({type!r}) has a line break in its type or body")
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, name, body)


class ServerSentEvent(NamedTuple):
    """One event as it was on the wire, in bytes: text is made of them where it is wanted, and JSON without it.

    Attributes:
        raw_id: The last event id in force; empty where there is none.
        raw_type: The event's type.
        raw_data: Its data.
    """

    raw_id: bytes
    raw_type: bytes
    raw_data: bytes

    @property
    def id(self) -> str:
        """The id as text, like the two below: what is no UTF-8 becomes U+FFFD."""
        return self.raw_id.decode("utf-8", "replace")

    @property
    def type(self) -> str:
        """The type as text."""
        return self.raw_type.decode("utf-8", "replace")

    @property
    def data(self) -> str:
        """The data as text."""
        return self.raw_data.decode("utf-8", "replace")


_event_of: Final = partial(tuple.__new__, ServerSentEvent)  # a NamedTuple's own is a Python function, and twice as slow


class EventStreamDecoder:
    """Turn the bytes of a `text/event-stream` into events. Does no I/O.

    Chunks may be cut anywhere, also inside a UTF-8 character or between CR and LF. After an error it is of no use.

    Args:
        last_event_id: The id in force at the start: what was sent as `Last-Event-ID`.
        max_event_bytes: An event whose lines exceed this is refused.

    Attributes:
        retry_ms: The wait before reconnecting that the server asked for last, or None.
        comments: How many comment lines have come so far; heartbeats are comments.
    """

    def __init__(self, *, last_event_id: str = "", max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.retry_ms: int | None = None
        self.comments = 0
        self._max_event_bytes = max_event_bytes
        self._pieces: list[bytes] = []  # the unfinished line; a list, so that many small chunks cost linear time
        self._pieces_size = 0
        self._after_cr = False
        self._is_first_line = True
        self._last_id = self._id = last_event_id.encode()
        self._type = b""
        self._data: list[bytes] = []
        self._data_size = 0

    @property
    def last_event_id(self) -> str:
        """Id to resume after; moves only with whole events."""
        return self._last_id.decode("utf-8", "replace")

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes, in order.

        Raises:
            EventTooLarge: An event exceeds `max_event_bytes`.
        """
        events: list[ServerSentEvent] = []
        at = 0
        if not self._is_between_events:
            at = chunk.find(b"\n\n") + 2  # after a blank line, whatever came before
            if at < 2:
                return self._take_bytes(chunk)
            events += self._take_bytes(chunk[:at])
        if b"\r" not in chunk and len(chunk) <= self._max_event_bytes:
            at = self._take_frames(chunk, at, events)
        if at < len(chunk):
            events += self._take_bytes(chunk[at:])
        return events

    @property
    def _is_between_events(self) -> bool:
        """Whether the next byte begins a line, and no field is waiting for its event's end."""
        is_waiting = self._pieces or self._data or self._type or self._id != self._last_id
        return not (is_waiting or self._after_cr or self._is_first_line)

    def _take_frames(self, chunk: bytes, at: int, events: list[ServerSentEvent]) -> int:
        """Add the events of the whole frames from `at` on to `events`; where they end.

        Frames as `encode_event` makes them are found by one regular expression, many at a time.
        """
        while at < len(chunk):
            end = cast(re.Match[bytes], _match_frames(chunk, at)).end()
            if end > at:
                events += map(_event_of, _find_frames(chunk, at, end))
                self._id = self._last_id = events[-1].raw_id
            else:
                end = chunk.find(b"\n\n", at) + 2
                if end < 2:
                    break
                events += self._take_bytes(chunk[at:end])
            at = end
        return at

    def _take_bytes(self, chunk: bytes) -> list[ServerSentEvent]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF whose CR has already ended the line
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()  # of bytes: at CR, LF and CRLF only
        unfinished = None if chunk.endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._pieces:
            self._hold(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces_size = 0
        events = self._take_lines(lines)
        if unfinished is not None:
            self._hold(unfinished)
        return events

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_size += len(piece)
        self._check_size(self._pieces_size + self._data_size)

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLarge(f"An event of the stream is larger than {self._max_event_bytes} bytes.")

    def _take_lines(self, lines: list[bytes]) -> list[ServerSentEvent]:
        if self._is_first_line and lines:
            self._is_first_line = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = []
        for line in lines:
            if line:
                self._take_field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
            self._check_size(self._data_size)
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"event":
            self._type = value
        elif not name:
            self.comments += 1
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self) -> ServerSentEvent | None:
        self._last_id = self._id
        kind, data = self._type, self._data
        self._type = b""
        if not data:
            return None
        self._data = []
        self._data_size = 0
        return ServerSentEvent(self._id, kind or b"message", data[0] if len(data) == 1 else b"\n".join(data))
