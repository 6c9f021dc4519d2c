"""uvicorn's HTTP connection with bounds: on a request's head and trailers, on a client's silence, on their number.

uvicorn keeps heads and trailers of any size in memory, and waits for the rest of a request for ever. Nobody needs an
account to connect, so a few such clients would take the server from everybody. So would a crowd that connects and
does not go on: when there are too many, the one we have waited for longest (for its request, its rest, or that it reads
its answer) makes room for the next.

A client may ask for another protocol (`Upgrade: h2c`, as curl and Java do), and the server may go on in HTTP/1.1 (RFC
9110, 7.8). uvicorn's parser can't: it stops at the end of such a head, and takes the body for the next request. So the
connection begins the request again, with a new parser and without that header.

A stream of events may wait for hours. The application may leave it to the connection (`keep_answer`) and return, so
that its task, its scope and all that a request is made of are not held until the stream's end.
"""

import asyncio
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from beray.server.edge import common_headers, language_asked, refusal, request_id_of
from beray.server.errors import Refused
from beray.server.messages import Language, text

if TYPE_CHECKING:
    from beray.server.tasks.stream.outlets import Kept

HEAD_MOST: Final = 64 << 10  # bytes, of a chunk's extensions and of trailers too; common proxies take 8 to 32 KiB
HEAD_SECONDS: Final = 30.0  # for a whole head, however slowly it drips
WHOLE_LEAST: Final = 16 << 10  # bytes of a body's piece that is worth handing on without a copy
PIPELINED_MOST: Final = 256  # requests that wait behind the one being answered; browsers and SDKs send none ahead
SILENCE_SECONDS: Final = 60.0  # between two pieces of a body, and before an answer that can't be sent on is given up


_NOBODY_WAITS: Final = asyncio.Event()  # what a kept answer has in place of its own, which takes 0.8 KB


class NotTaken(Exception):
    """HTTP, but nothing we answer; the argument is the message's key."""


class TooManyPipelined(Exception):
    """The client sends requests ahead without reading answers."""


class BoundedConnection(HttpToolsProtocol):
    """One client's connection."""

    language: Language = "zh"  # where the client asks for none
    head_seconds = HEAD_SECONDS
    silence_seconds = SILENCE_SECONDS
    open_most = sys.maxsize
    awaited: ClassVar[dict["BoundedConnection", None]] = {}  # the next move is theirs, longest first

    _deadline: asyncio.TimerHandle | None = None
    _is_parsing = False
    _asked_seconds: tuple[float | None] | None = None  # what `_close_in` was last told by what is being parsed
    _unread: asyncio.TimerHandle | None = None
    _current: RequestResponseCycle | None = None  # what is answered now, or was last; `cycle` is what was read last
    _kept: "Kept | None" = None  # what goes on with the current answer
    _is_over = False  # nothing more is read
    _is_in_head = False
    _is_in_body = False
    _has_progressed = False  # with what came now: a request began, its head ended, or some of its body came
    _idle_bytes = 0  # since then

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the parent's
        """A client has come; it must say something soon."""
        super().connection_made(transport)
        self._await_client()
        self._close_in(self.head_seconds)
        self._make_room()

    def _make_room(self) -> None:
        """They are told to have gone only later, so they are forgotten at once: many may come within a turn."""
        while len(self.connections) > self.open_most:
            longest = next((each for each in self.awaited if not each.flow.read_paused), None)  # else it is we who wait
            if longest is None:
                return
            del self.awaited[longest]
            self.connections.discard(longest)
            longest.transport.abort()

    def _await_client(self) -> None:
        """It has moved just now, and the next move is its own too."""
        self.awaited.pop(self, None)
        self.awaited[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self.awaited.pop(self, None)
        self._close_in(None)
        self._stop_unread()
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True  # uvicorn tells only the request that was read last
            self._current.message_event.set()
        super().connection_lost(exc)
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.lost()

    def keep_answer(self, kept: "Kept") -> None:
        """Leave the answer that is being given to `kept`; the application then returns. It ends by `send`, as ever."""
        cycle, task = self._current, asyncio.current_task()
        assert cycle is not None
        assert task is not None, "called by the application, in its task"
        if cycle.disconnected:
            kept.lost()
            return
        self._kept = kept
        cycle.disconnected = True  # or uvicorn would take an application that returns before its end for a broken one
        task.add_done_callback(lambda task: self._begin_kept(cycle))

    def _begin_kept(self, cycle: RequestResponseCycle) -> None:
        if self._kept is None:  # the client has gone meanwhile
            return
        cycle.disconnected = False
        cycle.on_response = self.on_response_complete  # uvicorn has put that away when the application returned
        cycle.scope = {"method": cycle.scope["method"]}  # type: ignore[typeddict-item]  # all that `send` reads of it
        cycle.message_event = _NOBODY_WAITS
        if self.cycle is cycle:
            self.scope, self.headers = cycle.scope, []
            self.flow.resume_reading()  # a body that nobody wants may have stopped it
        self._kept.begin()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._is_over:
            return
        if self in self.awaited:
            self._await_client()
        self._has_progressed = False
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError as error:
            self.logger.warning("Invalid HTTP request received.")  # uvicorn's words
            self._refuse(_reason(error))
            return
        if self._asked_seconds is not None:
            self._close_in(*self._asked_seconds)
        self._count(len(data))
        if self._is_in_body and self._has_progressed:
            self._close_in(self.silence_seconds)
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._close_in(self.head_seconds)  # empty lines between requests: they end uvicorn's wait for the next

    def _count(self, size: int) -> None:
        """Bound what is no body: a head, a chunk's extensions, trailers."""
        self._idle_bytes = 0 if self._has_progressed else self._idle_bytes + size
        is_in_request = self._is_in_head or self._is_in_body
        if is_in_request and self._idle_bytes > HEAD_MOST:
            self._refuse("head_too_large")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._is_in_head = self._has_progressed = True
        self._close_in(self.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head, or of trailers, which nobody reads here."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.parser.get_method() == b"CONNECT":
            raise NotTaken("no_connect")
        if self.parser.should_upgrade():
            return  # the request begins again
        if len(self.pipeline) >= PIPELINED_MOST:
            raise TooManyPipelined  # the parser stops here; those before are answered
        super().on_headers_complete()
        self._is_in_head, self._is_in_body = False, True
        self._has_progressed = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._has_progressed = True
        if self._kept is not None and self.cycle is self._current:
            return  # nobody reads it
        held: bytes | bytearray = cast(Any, self.cycle.body)
        if len(body) >= WHOLE_LEAST and not held and not self.cycle.response_complete:
            self.cycle.body = body  # type: ignore[assignment]  # uvicorn reads and replaces it: two copies less
            body = b""
        elif isinstance(held, bytes):
            self.cycle.body = bytearray(held)  # to be added to
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; now the client waits for us."""
        if self.parser.should_upgrade():
            return
        self._is_in_body = False
        self._close_in(None)
        self.awaited.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is whole; uvicorn goes on to the next request, if one waits."""
        self._kept = None
        super().on_response_complete()
        if self._current is not None and self._current.response_complete and not self.transport.is_closing():
            self._await_client()

    def pause_writing(self) -> None:
        """It reads more slowly than we write: as long as that is so, the next move is its own."""
        super().pause_writing()
        if self._kept is not None:
            self._kept.paused()
        self._await_client()
        self._unread = self.loop.call_later(self.silence_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._kept is not None:
            self._kept.resumed()
        self._stop_unread()
        if self._current is not None and not self._current.response_complete and not self._is_in_body:
            self.awaited.pop(self, None)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _parse(self, data: bytes) -> None:
        self._is_parsing = True
        try:
            self._feed_all(memoryview(data))
        finally:
            self._is_parsing = False

    def _feed_all(self, rest: memoryview) -> None:
        while (end := self._feed(rest)) is not None:
            head = self._head_without_upgrade()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            self.parser.feed_data(head)
            rest = rest[end:]

    def _feed(self, data: memoryview) -> int | None:
        """Where the parser stopped because the request asks for another protocol."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        return None

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version), *lines, b"", b""])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, reason: str) -> None:
        """Read nothing more, answer what was read, close; say why where that can't be taken for another answer."""
        self._is_over = True
        self._close_in(None)
        if self._is_in_body and self.pipeline:
            self.pipeline.popleft()  # it has no end and waits behind others
            self._is_in_body = False
        last = self.pipeline[0][0] if self.pipeline else self._current
        if last is None or (last.response_complete and not self._is_in_body):
            self._say(reason)
        elif not self._is_in_body:
            last.keep_alive = False  # uvicorn closes after it
            return
        elif not last.response_started:
            last.disconnected = True
            self._say(reason)
        self.transport.close()

    def _say(self, reason: str) -> None:
        sent = dict(self.headers) if self._is_in_head or self._is_in_body else {}
        language, request_id = language_asked(sent, self.language), request_id_of(sent)
        refused = Refused("bad_request", reason=text(reason, language, limit=HEAD_MOST))
        status, headers, body = refusal(refused, language, request_id)
        headers += [*self.server_state.default_headers, *common_headers(request_id), (b"connection", b"close")]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))

    def _close_in(self, seconds: float | None) -> None:
        """Close after this time, unless called again before; None: no more.

        Of what is asked for by one piece of data the last counts: most requests come whole, and need no timer.
        """
        if self._is_parsing:
            self._asked_seconds = (seconds,)
            return
        self._asked_seconds = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._close_silent)

    def _close_silent(self) -> None:
        if self.flow.read_paused:  # it may have sent more; it is we who don't read
            self._close_in(self.silence_seconds)
        else:
            self.transport.close()


def connection_speaking(language: Language, *, open_most: int = sys.maxsize) -> type[BoundedConnection]:
    """The connections of a server whose default language this is; uvicorn makes them itself, of a class."""
    return type("Connection", (BoundedConnection,), {"language": language, "open_most": open_most, "awaited": {}})


def _reason(error: HttpParserError) -> str:
    """The key of the message."""
    cause = error.__context__  # what a callback raised
    return str(cause) if isinstance(cause, NotTaken) else "not_http"
