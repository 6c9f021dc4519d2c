"""What does the effects of a flow for `AsyncBeRayClient`: the same as `on_requests.py`, on aiohttp."""

import asyncio
import contextvars
import inspect
import sys
from asyncio import sleep
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from beray.base_client import Options
from beray.drivers.aiohttp_errors import network_error
from beray.drivers.aiohttp_session import Connections
from beray.drivers.alike import (
    MOST_REDIRECTS,
    QUESTIONS,
    RENEWAL_SECONDS,
    as_value,
    check_redirect,
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
from beray.drivers.patience import Wait
from beray.exceptions import NetworkError
from beray.protocol.access import Access
from beray.protocol.calls import Body
from beray.protocol.effects import Do, Effect, Emit, Flow, Read, Renew, Result, Send, Sleep, Tell
from beray.protocol.responses import Answer
from beray.transfers.uploads import UploadBody

_SMALL_BYTES: Final = 16 * 1024  # a body of this size, announced, comes within the time that its head may take
_SPARE_SECONDS: Final = 0.5  # so that aiohttp, which knows more, is the first to say what is not in time


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
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect)  # the rest is `Patience`'s
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
        is_question = call.method in QUESTIONS
        url = self._connections.base_url + call.target
        headers = request_headers(call, self.options)
        if self._access.authorization is not None:
            headers["Authorization"] = self._access.authorization
        if self._connections.proxy_headers is not None and url.startswith("http://"):
            headers.update(self._connections.proxy_headers)  # aiohttp sends them to a tunnel's proxy alone
        response: aiohttp.ClientResponse | None = None
        try:
            place = self._connections.at_hand() or await self._connections.place()
            connect, silent = self.options.connect_timeout, silence_seconds(send, self.options)
            with Wait(place.patience, connect_seconds=connect, seconds=silent) as wait:
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
        self, session: aiohttp.ClientSession, send: Send, url: str, headers: dict[str, str], wait: Wait
    ) -> Awaitable[aiohttp.ClientResponse]:
        """The answer's head."""
        call = send.call
        request: Callable[..., Awaitable[aiohttp.ClientResponse]] = partial(
            session.request, call.method, headers=headers, timeout=self._timeout_for(send), **self._settings
        )
        place = URL(url, encoded=True)
        if call.method in QUESTIONS:
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


async def _whole_body(response: aiohttp.ClientResponse, send: Send, wait: Wait) -> bytes:
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
