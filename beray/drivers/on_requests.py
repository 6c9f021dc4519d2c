"""What does the effects of a flow for `BeRayClient`: the requests, reads and waits, one after another, on requests."""

import os
import threading
from collections.abc import Generator, Iterator
from time import monotonic, sleep
from typing import Any, Final, cast

import requests
import urllib3

from beray.base_client import Options
from beray.drivers.alike import (
    QUESTIONS,
    RENEWAL_SECONDS,
    as_value,
    check_size,
    is_renewing,
    left_until,
    lost_body,
    most_bytes,
    renewing,
    request_headers,
    silence,
    silence_seconds,
    too_late,
)
from beray.drivers.requests_errors import network_error
from beray.drivers.requests_session import BearerAuth, Reader, TunedSession, Until
from beray.exceptions import NetworkError, RequestTimeout
from beray.protocol.access import Access
from beray.protocol.calls import Call
from beray.protocol.effects import Do, Effect, Emit, Flow, Read, Renew, Result, Send, Sleep, Tell
from beray.protocol.responses import Answer
from beray.transfers.uploads import UploadBody

READ_BYTES: Final = 64 * 1024


class Connections:
    """The session of a client: the caller's own, or one that is made at the first request.

    Thread-safe, and made anew in a forked process: parent and child must share no connection.
    """

    def __init__(self, base_url: str, given: requests.Session | None) -> None:
        self.base_url = base_url
        self.is_given = given is not None
        self._given = given
        self._own: dict[int, TunedSession] = {}  # by process

    def session(self) -> requests.Session:
        """The session to use now."""
        if self._given is not None:
            return self._given
        pid = os.getpid()
        own = self._own.get(pid)
        if own is None:  # `setdefault`: of threads that come here at once, one makes the session that all use
            own = self._own.setdefault(pid, TunedSession(self.base_url))
        return own

    def close(self) -> None:
        """Close the connections. A session given by the caller stays open."""
        own = self._own.pop(os.getpid(), None)
        if own is not None:
            own.close()


class Driver:
    """Runs flows."""

    def __init__(self, connections: Connections, options: Options, access: Access) -> None:
        self._connections = connections
        self._options = options
        self._access = access
        self._renewals: dict[int, threading.Lock] = {}  # by process: one may be held elsewhere at a fork

    @property
    def is_borrowed(self) -> bool:
        """Whether the session is the caller's own."""
        return self._connections.is_given

    def with_options(self, options: Options) -> "Driver":
        """Another that shares the connections, and the lock: it is the same token."""
        other = Driver(self._connections, options, self._access)
        other._renewals = self._renewals
        return other

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def run(self, flow: Flow[Result]) -> Result:
        """What the flow returns; it emits nothing."""
        steps = self.iterate(flow)
        try:
            next(steps)
        except StopIteration as end:
            return cast(Result, end.value)
        raise AssertionError("a flow that emits is iterated over")

    def iterate(self, flow: Flow[Result]) -> Generator[Any, None, Result]:
        """What the flow emits; it is closed with the iterator."""
        opened: _OpenBody | None = None
        result: Any = None
        try:
            effect = next(flow)
            while True:
                try:
                    if type(effect) is Send:
                        if effect.is_streamed and opened is not None:
                            opened.close()
                            opened = None
                        result = self._send(effect)
                        if effect.is_streamed and isinstance(result, Answer) and result.is_success:
                            opened = _OpenBody(result, effect, self._options)
                    elif type(effect) is Read:
                        assert opened is not None
                        result = opened.read(effect.deadline)
                    elif type(effect) is Emit:
                        yield from effect.items
                        result = None
                    else:
                        result = self._do(effect)
                except GeneratorExit:
                    raise
                except BaseException as error:  # the flow decides: it may have something to undo
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            if opened is not None and end.value is opened.answer:
                opened = None  # it goes to the caller, who closes it
            return cast(Result, end.value)
        finally:
            flow.close()
            if opened is not None:
                opened.close()

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Sleep(seconds):
                return sleep(seconds)
            case Do(work):
                return work()
            case Tell(function, arguments):
                return function(*arguments)
            case Renew(token):
                return self._renew(token)
            case _:
                raise AssertionError(f"no driver does {effect}")

    def _renew(self, token: str | None) -> bool:
        """Ask the user's hook for another token, unless another thread has got one meanwhile."""
        if self._access.renew is None or is_renewing(self._access):
            return False
        lock = self._renewals.setdefault(os.getpid(), threading.Lock())
        if not lock.acquire(timeout=RENEWAL_SECONDS):
            return False
        try:
            if self._access.token == token:
                with renewing(self._access):
                    renewed = self._access.renew()
                if renewed is not None:
                    self._access.set(renewed)
            return self._access.token not in (None, token)
        finally:
            lock.release()

    def _send(self, send: Send) -> Answer | NetworkError:
        call = send.call
        url = self._connections.base_url + call.target
        connect, read = self._options.connect_timeout, silence_seconds(send, self._options)
        timeout: Any = (connect, read)
        if send.deadline is not None:
            timeout = Until(connect, read, deadline=send.deadline)
            if isinstance(call.body, UploadBody):
                call.body.deadline = send.deadline
        try:
            response = self._connections.session().request(
                call.method,
                url,
                data=cast(Any, call.body),
                headers=request_headers(call, self._options),
                auth=BearerAuth(self._access.authorization),
                timeout=timeout,
                stream=True,
            )
            is_unread = send.is_streamed and 200 <= response.status_code < 300
            body = b"" if is_unread else _whole_body(response, send, url)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            failure = network_error(error, method=call.method, url=url, timeout_seconds=read)
            if isinstance(failure, RequestTimeout) and send.deadline is not None and monotonic() >= send.deadline:
                failure = too_late(call.method, url)
            return as_value(failure, cause=error)
        _check_redirects(call, response)
        return Answer(
            status=response.status_code,
            headers=response.headers,
            body=body,
            method=call.method,
            url=url,
            response=response,
        )


class _OpenBody:
    """The unread body of an answer."""

    def __init__(self, answer: Answer, send: Send, options: Options) -> None:
        self.answer = answer
        self._has_heartbeats = send.is_event_stream
        self._silence_seconds = silence_seconds(send, options)
        self._chunks = _chunks_of(answer.response)

    def read(self, deadline: float | None) -> bytes | NetworkError:
        """The next bytes, as soon as some are there; `b""` at the clean end."""
        seconds = self._silence_seconds
        if deadline is not None:
            seconds = min(seconds, left_until(deadline))
            _set_timeout(self.answer.response, seconds)
        try:
            return next(self._chunks, b"")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            method, url = self.answer.method, self.answer.url
            failure = network_error(error, method=method, url=url, timeout_seconds=seconds)
            if isinstance(failure, RequestTimeout) and self._has_heartbeats:
                failure = silence(method, url, seconds)
            return as_value(failure, cause=error)

    def close(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self.answer.response.close()


def _whole_body(response: requests.Response, send: Send, url: str) -> bytes:
    """Read the body as `response.content`, each piece by the deadline, and no more than there may be."""
    kept: Any = response
    if kept._content is not False:  # a hook of the session has read it
        return response.content or b""
    most = most_bytes(send.call, response.status_code)
    pieces: list[bytes] = []
    size = 0
    chunks = _chunks_of(response)
    while True:
        if send.deadline is not None:
            _wait_until(response, send.deadline)
        chunk = next(chunks, b"")
        if not chunk:
            break
        pieces.append(chunk)
        size += len(chunk)
        if most is not None and size > most:
            response.close()
            check_size(send.call, url=url, most=most)
            break
    body = kept._content = b"".join(pieces)
    kept._content_consumed = True  # as `response.content` does
    return body


def _wait_until(response: requests.Response, deadline: float) -> None:
    left = deadline - monotonic()
    if left <= 0:
        response.close()
        raise requests.ReadTimeout("the deadline has passed")
    _set_timeout(response, left)


def _set_timeout(response: requests.Response, seconds: float) -> None:
    """Let the next read end within `seconds`; where there is no socket (a test's answer) nothing waits."""
    reader = getattr(getattr(getattr(response.raw, "_fp", None), "fp", None), "raw", None)
    if isinstance(reader, Reader):
        reader.end = monotonic() + seconds
        return
    connection = getattr(response.raw, "connection", None)
    socket = getattr(connection, "sock", None)
    if socket is None:  # the server closes after this answer: only the body's reader still has it
        socket = getattr(reader, "_sock", None)
    if socket is not None:
        socket.settimeout(seconds)


def _chunks_of(response: requests.Response) -> Iterator[bytes]:
    """The body's bytes as they come. `iter_content` would wait until an HTTP chunk is whole, and lose it in a cut."""
    raw = response.raw
    if not hasattr(raw, "read1"):  # a test's answer
        return cast(Iterator[bytes], response.iter_content(READ_BYTES))
    return iter(lambda: raw.read1(READ_BYTES, decode_content=True), b"")


def _check_redirects(call: Call[Any], response: requests.Response) -> None:
    if call.method not in QUESTIONS and any(step.status_code in (301, 302, 303) for step in response.history):
        raise lost_body(call, url=str(response.history[0].url), target=str(response.url))
