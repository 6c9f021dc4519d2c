"""What does the effects of a flow for `AsyncBeRayClient`: the same as `driver.py`, on aiohttp."""

import asyncio
import contextvars
import errno
import inspect
import os
import select
import ssl
import sys
import urllib.request
from asyncio import sleep
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from beray import __version__
from beray.base_client import Options
from beray.driving import (
    IS_IT_RUNNING,
    MOST_COOKIES,
    MOST_REDIRECTS,
    RENEWAL_SECONDS,
    as_value,
    check_redirect,
    check_size,
    is_renewing,
    left_until,
    lost_body,
    most_bytes,
    no_connection,
    renewing,
    request_headers,
    silence,
    silence_seconds,
    too_late,
)
from beray.environment import certificates, named_certificates
from beray.exceptions import BeRayException, ConnectionFailed, NetworkError, ProtocolError, RequestTimeout, TLSError
from beray.protocol.access import Access, Secret
from beray.protocol.calls import Body
from beray.protocol.effects import Do, Effect, Emit, Flow, Read, Renew, Result, Send, Sleep, Tell
from beray.protocol.responses import Answer
from beray.uploads import UploadBody

_LOOK_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 0.005
_SMALL_BYTES: Final = 16 * 1024  # a body of this size, announced, comes within the time that its head may take
_SPARE_SECONDS: Final = 0.5  # so that aiohttp, which knows more, is the first to say what is not in time

KEPT_SECONDS: Final = 4.0  # a connection is used again within this; servers commonly close an idle one after 5 s

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)
_QUESTIONS = ("GET", "HEAD")
_NO_TLS = (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)
_NO_PROTOCOL = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)


class Connections:
    """The sessions of a client: the caller's own, or one that is made at the first request in each event loop.

    Loops may run at the same time, in several threads.
    """

    def __init__(self, base_url: str, given: aiohttp.ClientSession | None) -> None:
        self.base_url = base_url
        self.is_given = given is not None
        self.proxy, self.proxy_headers = (None, None) if self.is_given else _proxy_for(base_url)
        self._given = given
        self._places: dict[asyncio.AbstractEventLoop, _Place] = {}
        self._of_parent: Any = None
        self._pid = os.getpid()

    def at_hand(self) -> "_Place | None":
        """What this event loop's calls go through, if that is there already."""
        return self._places.get(asyncio.get_running_loop()) if self._pid == os.getpid() else None

    async def place(self) -> "_Place":
        """What this event loop's calls go through."""
        self._leave_those_of_parent()
        loop = asyncio.get_running_loop()
        self._forget_loops(lambda other: other.is_closed())
        patience = _Patience()
        session = self._given
        if session is None:
            context = await asyncio.to_thread(_tls_context) if self._may_be_secure() else True
            if loop in self._places:  # another task has been here meanwhile
                return self._places[loop]
            session = _new_session(context, patience)
        place = self._places[loop] = _Place(session, patience)
        return place

    def _may_be_secure(self) -> bool:
        """Whether authorities are needed: also for redirects to https, but a wrong name must not end plain calls."""
        named = named_certificates(os.environ)
        return self.base_url.startswith("https://") or (named is not None and Path(named).exists())

    async def close(self) -> None:
        """Close the connections, but for those of event loops that run elsewhere; a caller's session stays open."""
        self._leave_those_of_parent()
        place = self._places.pop(asyncio.get_running_loop(), None)
        self._forget_loops(lambda other: not other.is_running())
        if place is not None and not self.is_given:
            await place.session.close()

    def _leave_those_of_parent(self) -> None:
        """In a forked process, touch them no more, and keep them from being collected.

        Closing them would take the sockets from the parent's event loop: both processes have the same epoll.
        """
        if self._pid != os.getpid():
            self._of_parent, self._places, self._pid = (self._of_parent, self._places), {}, os.getpid()

    def _forget_loops(self, is_over: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        """Leave the sessions of event loops that are over: they can't be closed in any other."""
        for loop in list(self._places):
            place = self._places.pop(loop, None) if is_over(loop) else None
            if place is not None and not self.is_given and (connector := place.session.connector) is not None:
                place.session.detach()
                _close_without_loop(connector)


class _Place(NamedTuple):
    """What the calls of an event loop share."""

    session: aiohttp.ClientSession
    patience: "_Patience"


def _close_without_loop(connector: aiohttp.BaseConnector) -> None:
    """Close what can be closed at once; what a closing waits for happens in no loop any more."""
    with suppress(RuntimeError, StopIteration):  # the loop is closed; nothing was waited for
        closing: Any = connector.close().__await__()
        try:
            closing.send(None)
        finally:
            closing.close()


class AsyncDriver:
    """Runs flows."""

    def __init__(self, connections: Connections, options: Options, access: Access) -> None:
        self._connections = connections
        self.options = options
        self._access = access
        self._renewals: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        connect = options.connect_timeout
        self._settings: dict[str, Any] = {"max_redirects": MOST_REDIRECTS}
        if connections.proxy is not None:
            self._settings |= {"proxy": connections.proxy, "proxy_headers": connections.proxy_headers}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect)  # the rest is `_Patience`'s
        self._timeout_of_body = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=options.read_timeout)
        self._timeout_of_stream = aiohttp.ClientTimeout(
            total=None, sock_connect=connect, sock_read=options.stream_timeout
        )

    @property
    def is_borrowed(self) -> bool:
        """Whether the session is the caller's own."""
        return self._connections.is_given

    def with_options(self, options: Options) -> "AsyncDriver":
        """Another that shares the connections, and the locks: it is the same token."""
        other = AsyncDriver(self._connections, options, self._access)
        other._renewals = self._renewals
        return other

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def run(self, flow: Flow[Result]) -> Result:
        """What the flow returns; it emits nothing."""
        steps: _Steps | None = None
        try:
            effect = next(flow)
            while True:
                try:
                    if type(effect) is Send and not effect.is_streamed and effect.deadline is None:
                        result = await self._send(effect)  # most calls: each step between would cost as much again
                    else:
                        steps = steps or _Steps(self)
                        result = await steps.do(effect)
                except BaseException as error:  # the flow decides: it may have something to undo
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            if steps is not None:
                steps.hand_over(end.value)
            return cast(Result, end.value)
        finally:
            flow.close()
            if steps is not None:
                steps.close()

    async def iterate(self, flow: Flow[Any]) -> AsyncGenerator[Any, None]:
        """What the flow emits; it is closed with the iterator."""
        steps = _Steps(self)
        try:
            effect = next(flow)
            while True:
                try:
                    result = None
                    if type(effect) is Emit:
                        for item in effect.items:
                            yield item
                    else:
                        result = await steps.do(effect)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration:
            return
        finally:
            flow.close()
            steps.close()

    async def renew(self, token: str | None) -> bool:
        """Ask the user's hook for another token, unless another task has got one meanwhile."""
        if self._access.renew is None or is_renewing(self._access):
            return False
        lock = self._renewals.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        try:
            async with asyncio.timeout(RENEWAL_SECONDS):
                await lock.acquire()
        except TimeoutError:
            return False
        try:
            if self._access.token == token:
                with renewing(self._access):
                    renewed = await _awaited(self._access.renew())
                if renewed is not None:
                    self._access.set(renewed)
            return self._access.token not in (None, token)
        finally:
            lock.release()

    async def send(self, send: Send) -> Answer | NetworkError:
        """Make a request."""
        if send.deadline is None:
            return await self._send(send)
        seconds = left_until(send.deadline)
        try:
            async with asyncio.timeout(seconds):
                return await self._send(send)
        except TimeoutError as error:
            url = self._connections.base_url + send.call.target
            return as_value(too_late(send.call.method, url), cause=error)

    async def _send(self, send: Send) -> Answer | NetworkError:
        call = send.call
        is_question = call.method in _QUESTIONS
        url = self._connections.base_url + call.target
        headers = request_headers(call, self.options)
        if self._access.authorization is not None:
            headers["Authorization"] = self._access.authorization
        if self._connections.proxy_headers is not None and url.startswith("http://"):
            headers.update(self._connections.proxy_headers)  # aiohttp sends them to a tunnel's proxy alone
        response: aiohttp.ClientResponse | None = None
        try:
            place = self._connections.at_hand() or await self._connections.place()
            with _Wait(place.patience, self.options.connect_timeout + silence_seconds(send, self.options)) as wait:
                response = await self._answered(place.session, send, url, headers, wait)
                if send.is_streamed and 200 <= response.status < 300:
                    body = b""
                elif _is_small(response):
                    body = await response.read()
                else:
                    body = await _whole_body(response, send, wait)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # OSError: TimeoutError, a certificate's file
            if response is not None:
                response.close()
            if isinstance(call.body, UploadBody) and call.body.failure is not None:
                raise call.body.failure from call.body.failure.__cause__  # no further attempt would help
            seconds = silence_seconds(send, self.options)
            return as_value(network_error(error, method=call.method, url=url, timeout_seconds=seconds), cause=error)
        if not is_question and response.status in (301, 302, 303):
            response.close()
            raise lost_body(call, url=url, target=response.headers.get("Location", "nowhere"))
        return Answer(response.status, cast(Any, response.headers), body, call.method, url, response)

    def _timeout_for(self, send: Send) -> aiohttp.ClientTimeout:
        if not send.is_streamed:
            return self._timeout
        return self._timeout_of_stream if send.is_event_stream else self._timeout_of_body

    def _answered(
        self, session: aiohttp.ClientSession, send: Send, url: str, headers: dict[str, str], wait: "_Wait"
    ) -> Awaitable[aiohttp.ClientResponse]:
        """The answer's head."""
        call = send.call
        request: Callable[..., Awaitable[aiohttp.ClientResponse]] = partial(
            session.request, call.method, headers=headers, timeout=self._timeout_for(send), **self._settings
        )
        place = URL(url, encoded=True)
        if call.method in _QUESTIONS:
            return request(place)
        body = partial(_body, call.body, headers, wait.begin_again)
        return _redirected(lambda url: request(url, data=body(), allow_redirects=False), call.method, place)


async def _redirected(
    request: Callable[[URL], Awaitable[aiohttp.ClientResponse]], method: str, url: URL
) -> aiohttp.ClientResponse:
    """The answer's head, of what is more than a question: a redirect is judged before it is followed."""
    for _ in range(MOST_REDIRECTS):
        response = await request(url)
        if response.status not in (307, 308):
            break
        url = _target(method, url, response)
    return response


class _Wait:
    """How long a call still waits for the next piece of its answer; beyond that, `TimeoutError`.

    It is what `asyncio.timeout` does, without a timer of its own: `_Patience` calls `end`.
    """

    __slots__ = ("_cancelling", "_is_over", "_patience", "_seconds", "_task", "due")

    def __init__(self, patience: "_Patience", seconds: float) -> None:
        self._patience = patience
        self._seconds = seconds
        self._is_over = False
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self.due = patience.time() + seconds

    def begin_again(self) -> None:
        """A piece has come, or gone."""
        self.due = self._patience.time() + self._seconds

    def end(self) -> None:
        """The time is over."""
        self._is_over = True
        self._task.cancel()

    def __enter__(self) -> Self:
        self._patience.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._patience.remove(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class _Patience:
    """Ends calls whose answer's head, or next piece, is not there in time.

    aiohttp waits for each byte of a head anew, passes over as many interim answers (1xx) as come, and waits for ever
    where a peer breaks the protocol after the last chunk. A timer for each call would cost a tenth of it, so one for
    all of an event loop looks now and then.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._waits: set[_Wait] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._ended_at = self.time()

    def add(self, wait: _Wait) -> None:
        """Watch over a call."""
        self._waits.add(wait)
        if self._next_look is None:
            self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look)

    def remove(self, wait: _Wait) -> None:
        """The call is over."""
        self._waits.discard(wait)
        self._ended_at = self.time()

    @property
    def is_busy(self) -> bool:
        """Whether a call has ended within the last moments."""
        return self.time() - self._ended_at < _BUSY_SECONDS

    def _look(self) -> None:
        now = self.time()
        for wait in [wait for wait in self._waits if wait.due <= now]:
            self._waits.discard(wait)
            wait.end()
        self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look) if self._waits else None


def _target(method: str, url: URL, response: aiohttp.ClientResponse) -> URL:
    """Where a redirect leads to."""
    location = response.headers.get("Location", "")
    response.close()
    try:
        target = url.join(URL(location))
        check_redirect(method, str(url), str(target))
    except ValueError as error:
        raise aiohttp.InvalidURL(location, f"it was redirected to what is no URL: {error}") from error
    return target


def _is_small(response: aiohttp.ClientResponse) -> bool:
    """Whether the body needs no watching: it is announced, and unpacks to no more."""
    size = response.content_length
    return size is not None and size <= _SMALL_BYTES and "Content-Encoding" not in response.headers


async def _whole_body(response: aiohttp.ClientResponse, send: Send, wait: _Wait) -> bytes:
    """Read the body as `response.read`, and no more than there may be."""
    most = most_bytes(send.call, response.status) or sys.maxsize
    pieces: list[bytes] = []
    size = 0
    try:
        while chunk := await response.content.readany():
            wait.begin_again()
            pieces.append(chunk)
            size += len(chunk)
            if size > most:
                response.close()
                check_size(send.call, url=str(response.url), most=most)
                break
    except BaseException:
        response.close()
        raise
    response._body = b"".join(pieces)  # as `response.read` does: an error's `response` can be read again
    return response._body


class _Steps:
    """The effects of one flow, and the stream it has opened last."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._opened: Answer | None = None
        self._silence_seconds = 0.0
        self._has_heartbeats = False

    async def do(self, effect: Effect) -> Any:
        if type(effect) is Send:
            return await self._send(effect)
        match effect:
            case Read(deadline):
                return await self._read(deadline)
            case Sleep(seconds):
                return await sleep(seconds)
            case Do(work):
                return await _in_thread(work)
            case Tell(function, arguments):
                return await _awaited(function(*arguments))
            case Renew(token):
                return await self._driver.renew(token)
            case _:
                raise AssertionError(f"a flow that emits is iterated over: {effect}")

    async def _send(self, send: Send) -> Answer | NetworkError:
        if send.is_streamed:
            self.close()
        result = await self._driver.send(send)
        if send.is_streamed and isinstance(result, Answer) and result.is_success:
            self._opened = result
            self._silence_seconds = silence_seconds(send, self._driver.options)
            self._has_heartbeats = send.is_event_stream
        return result

    async def _read(self, deadline: float | None) -> bytes | NetworkError:
        """The next bytes, as soon as some are there; `b""` at the clean end."""
        assert self._opened is not None
        answer = self._opened
        try:
            # aiohttp's own bound on silence is gone where a peer breaks the protocol after the last chunk.
            patience = self._silence_seconds + _SPARE_SECONDS if deadline is None else left_until(deadline)
            async with asyncio.timeout(patience):
                return cast(bytes, await answer.response.content.readany())
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and self._has_heartbeats:
                return as_value(silence(answer.method, answer.url, self._silence_seconds), cause=error)
            failure = network_error(error, method=answer.method, url=answer.url, timeout_seconds=self._silence_seconds)
            return as_value(failure, cause=error)

    def hand_over(self, value: Any) -> None:
        """An answer that a flow returns is the caller's to close."""
        if self._opened is value:
            self._opened = None

    def close(self) -> None:
        """Close the connection of the stream, unless that has been read to its end."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.response.close()


async def _in_thread(work: Callable[[], Any]) -> Any:
    """What `work` gives. A cancelled caller waits until it is over, since what it works on is closed next."""
    running = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if running.exception() is None and hasattr(running.result(), "close"):
            running.result().close()  # a file that nobody will get
        raise


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _body(body: Body | None, headers: dict[str, str], on_piece: Callable[[], object]) -> Any:
    """The body as aiohttp takes it; a file's pieces are read in a thread."""
    if not isinstance(body, UploadBody):
        return body
    if body.size is not None:
        headers["Content-Length"] = str(body.size)
    return _pieces(body, on_piece)


async def _pieces(body: UploadBody, on_piece: Callable[[], object]) -> AsyncIterator[bytes]:
    """The pieces; aiohttp makes a cut connection of what goes wrong here, so the body keeps it."""
    try:
        await _in_thread(body.restart)
        while piece := await _in_thread(body.next_piece):
            yield piece
            on_piece()
            body.report()
    except Exception as error:
        body.failure = error
        raise


class _FewCookies(aiohttp.CookieJar):
    """Takes as many cookies as a load balancer sets, not as many as a server could send."""

    def update_cookies(self, *args: Any, **kwargs: Any) -> None:
        """Keep an answer's cookies, if there is room."""
        if len(self) < MOST_COOKIES:
            super().update_cookies(*args, **kwargs)

    def update_cookies_from_headers(self, *args: Any, **kwargs: Any) -> None:
        """As `update_cookies`: newer versions of aiohttp come here."""
        if len(self) < MOST_COOKIES:
            super().update_cookies_from_headers(*args, **kwargs)


class _Connector(aiohttp.TCPConnector):
    """Gives no connection on which something has come already: it would be taken for the next call's answer."""

    def __init__(self, patience: _Patience, **options: Any) -> None:
        super().__init__(**options)
        self._patience = patience

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent's."""
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol = connection.protocol
            if protocol is None or not (protocol.should_close or self._has_news(connection.transport)):
                return connection
            connection.close()

    def _has_news(self, transport: asyncio.BaseTransport | None) -> bool:
        """Not asked while the event loop is at work: it reads what comes by itself, and asking costs 5 µs a call."""
        return not self._patience.is_busy and _has_news(transport)


def _has_news(transport: asyncio.BaseTransport | None) -> bool:
    """Whether bytes, or the connection's end, wait to be read. On a secure one that may be its own affairs: tickets."""
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return False
    socket = transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0:
        return False
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _new_session(context: ssl.SSLContext | bool, patience: _Patience) -> aiohttp.ClientSession:
    # Without a limit: the caller bounds the calls.
    connector = _Connector(patience, limit=0, ssl=context, keepalive_timeout=KEPT_SECONDS)
    session = aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": f"beray/{__version__} aiohttp/{aiohttp.__version__}"},
        cookie_jar=_FewCookies(unsafe=True),  # also of servers that are named by their address
    )
    # It would repeat a call by itself, where the flows have to know of each attempt: a deletion's second one finds
    # nothing. There is no public name for it; without it, one repetition more is made.
    session._retry_connection = False
    return session


def _tls_context() -> ssl.SSLContext:
    """Trusts whom the synchronous client trusts."""
    place = certificates(os.environ)
    if not Path(place).exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)  # OpenSSL's error names nothing
    is_folder = Path(place).is_dir()
    return ssl.create_default_context(cafile=None if is_folder else place, capath=place if is_folder else None)


def _proxy_for(base_url: str) -> tuple[URL | None, dict[str, str] | None]:
    """The proxy that the environment names for the server; read once, as by the synchronous client.

    Its password is no part of the URL, which aiohttp's errors tell.
    """
    parts = urlsplit(base_url)
    host = parts.netloc
    if urllib.request.proxy_bypass(host):
        return None, None
    proxies = urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named:
        return None, None
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.user is None:
        return proxy, None
    login = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode("ascii")
    return proxy.with_user(None), {"Proxy-Authorization": Secret(f"Basic {login}")}


def network_error(error: Exception, *, method: str, url: str, timeout_seconds: float) -> BeRayException:
    """What aiohttp raised, as the SDK's own exception.

    Args:
        error: What was caught.
        method: The request's method.
        url: The request's URL.
        timeout_seconds: The read timeout, for the message.
    """
    what = f"{method} {url}"
    if isinstance(error, _NO_TLS):
        return TLSError(f"{what}: no secure connection: {_reason(error)}", method=method, url=url, was_sent=False)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"{what}: the server could not be reached in time."
        return RequestTimeout(message, method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if isinstance(error, _NOT_SENT):
        message = no_connection(what, _reason(error))
        return ConnectionFailed(message, method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if isinstance(error, TimeoutError):
        return RequestTimeout(f"{what}: nothing came for {timeout_seconds:g} s.", method=method, url=url)
    if isinstance(error, aiohttp.TooManyRedirects):
        return ProtocolError(f"{what}: it was redirected more than {MOST_REDIRECTS} times.")
    if isinstance(error, _NO_PROTOCOL):
        return ProtocolError(f"{what}: {_reason(error)}")
    if isinstance(error, aiohttp.ClientError):
        return ConnectionFailed(f"{what}: the connection was cut: {_reason(error)}", method=method, url=url)
    return TLSError(f"{what}: {error}", method=method, url=url, was_sent=False)  # an OSError: a certificate's file


def _reason(error: BaseException) -> str:
    """The innermost words, such as `Connection refused`."""
    inner = error.__cause__ or error.__context__
    if inner is not None and (words := _reason(inner)) and words != type(inner).__name__:
        return words
    if isinstance(error, ssl.SSLError):
        return str(error)  # its number is not the system's
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own words name the address alone
    return str(error) or type(error).__name__
