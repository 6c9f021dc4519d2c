"""An HTTP client each of whose connections is made by a `Dialer`: a name is looked up once, what it means is checked,
and exactly that is connected to. Imports the HTTP library.

It takes no proxy and nothing else from the environment, keeps no cookies, follows no redirects by itself, and bounds
every body that is not a stream of events. Compressed bodies are refused: they are asked for by nobody here, and a few
bytes of them can hold gigabytes.
"""

import asyncio
import select
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import anyio
import anyio.abc
import httpcore2
import httpx2
from anyio.streams.tls import TLSAttribute, TLSStream

from beray.server.sandbox.egress.dial import Dialer
from beray.server.sandbox.egress.request import Refusal, Target

EVENT_STREAM: Final = "text/event-stream"
MOST_CONNECTIONS: Final = 8
MOST_LOOKUPS: Final = 2
KEEPALIVE_SECONDS: Final = 30.0


class BodyTooLarge(httpx2.TransportError):
    """More came than is taken."""


Seen = Callable[[httpx2.Response], None]


@asynccontextmanager
async def open_client(
    dialer: Dialer,
    *,
    most_body_bytes: int,
    timeout_seconds: float,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    seen: Seen = lambda response: None,
    lookups: asyncio.Semaphore | None = None,
    takes_compressed: bool = False,
    most_read_bytes: int | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that connects by `dialer`.

    Args:
        dialer: Makes its connections.
        most_body_bytes: A longer body fails with `BodyTooLarge` while it is read.
        timeout_seconds: Of each read and write; who connects has its own.
        headers: Sent with every request.
        tls: Which certificates are believed; default those of this machine.
        seen: Told of each response when its head has come.
        lookups: How many names are looked up at a time, with others that are given the same; default two.
        takes_compressed: A compressed body is let through, for who reads none, or only raw.
        most_read_bytes: Of one connection, heads and interim answers included, of which there may be any number.
    """
    if tls is None:
        tls = await asyncio.to_thread(_machines_certificates)
    backend = _DialingBackend(dialer, lookups or asyncio.Semaphore(MOST_LOOKUPS), most_read_bytes)
    transport = _DialedTransport(backend, tls, most_body_bytes, seen, takes_compressed=takes_compressed)
    async with httpx2.AsyncClient(
        transport=transport,
        headers={"accept-encoding": "identity", **(headers or {})},
        timeout=timeout_seconds,
        trust_env=False,
        follow_redirects=False,
    ) as client:
        yield client


def _machines_certificates() -> ssl.SSLContext:
    """Reads some hundred of them."""
    return ssl.create_default_context()


class _DialedTransport(httpx2.AsyncBaseTransport):
    def __init__(
        self,
        backend: "_DialingBackend",
        tls: ssl.SSLContext,
        most_body_bytes: int,
        seen: Seen,
        *,
        takes_compressed: bool,
    ) -> None:
        self._most_body_bytes = most_body_bytes
        self._seen = seen
        self._takes_compressed = takes_compressed
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=MOST_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream), "an async client sends such"
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _faults_translated():
            answer = await self._pool.handle_async_request(asked)
        stream = _Body(answer, self._most_body_bytes)
        response = httpx2.Response(answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions)
        if response.headers.get("content-type", "").startswith(EVENT_STREAM):
            stream.most_bytes = None
        is_plain = response.headers.get("content-encoding", "identity").lower() == "identity"
        if not is_plain and not self._takes_compressed:
            await stream.aclose()
            raise httpx2.RemoteProtocolError("it answered with a compressed body, which was not asked for")
        response.request = request
        self._seen(response)
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """A response's body.

    Attributes:
        most_bytes: None: it is a stream that may go on.
    """

    def __init__(self, answer: httpcore2.Response, most_bytes: int) -> None:
        self._answer = answer
        self.most_bytes: int | None = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        with _faults_translated():
            async for piece in self._answer.aiter_stream():
                size += len(piece)
                if self.most_bytes is not None and size > self.most_bytes:
                    raise BodyTooLarge(f"its answer is larger than {self.most_bytes} bytes")
                yield piece

    async def aclose(self) -> None:
        with _faults_translated():
            await self._answer.aclose()


@contextmanager
def _faults_translated() -> Any:
    """The pool's faults as the client's, which is what its users know."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise httpx2.TimeoutException(str(error) or "no answer in time") from error
    except httpcore2.NetworkError as error:
        raise httpx2.NetworkError(str(error) or "the connection was lost") from error
    except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
        raise httpx2.RemoteProtocolError(str(error)) from error


class _DialingBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, dialer: Dialer, lookups: asyncio.Semaphore, most_read_bytes: int | None) -> None:
        self._dialer = dialer
        self._lookups = lookups
        self._most_read_bytes = most_read_bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature; the dialer has its own deadlines
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            connected = await self._dialer.connect(Target(host, port), self._lookups)
        except Refusal as refusal:
            raise httpcore2.ConnectError(str(refusal)) from refusal
        return _Stream(await anyio.abc.SocketStream.from_socket(connected), self._most_read_bytes)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: anyio.abc.ByteStream, most_read_bytes: int | None) -> None:
        self._stream = stream
        self._most_read_bytes = most_read_bytes
        self._read_bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - see above
        with _stream_faults(httpcore2.ReadError, httpcore2.ReadTimeout):
            async with asyncio.timeout(timeout):
                try:
                    data = await self._stream.receive(max_bytes)
                except anyio.EndOfStream:
                    return b""
        self._read_bytes += len(data)
        if self._most_read_bytes is not None and self._read_bytes > self._most_read_bytes:
            raise httpcore2.RemoteProtocolError(f"it answered with more than {self._most_read_bytes} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - see above
        if not buffer:
            return
        with _stream_faults(httpcore2.WriteError, httpcore2.WriteTimeout):
            async with asyncio.timeout(timeout):
                await self._stream.send(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - see above
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with _stream_faults(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                async with asyncio.timeout(timeout):
                    wrapped = await TLSStream.wrap(
                        self._stream,
                        hostname=server_hostname,
                        ssl_context=ssl_context,
                        standard_compatible=False,  # many servers close without saying so in TLS
                        server_side=False,
                    )
        except BaseException:
            await self.aclose()
            raise
        return _Stream(wrapped, self._most_read_bytes)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return _extra(self._stream, TLSAttribute.ssl_object)
        if info == "is_readable":  # an idle connection that can be read has been closed, or was never in order
            return _is_readable(self._stream)
        return None


def _extra(stream: anyio.abc.ByteStream, attribute: Any) -> Any:
    """What a stream, or one that it wraps, knows of itself; None if it doesn't."""
    return stream.extra_attributes.get(attribute, lambda: None)()


def _is_readable(stream: anyio.abc.ByteStream) -> bool:
    raw = _extra(stream, anyio.abc.SocketAttribute.raw_socket)
    if raw is None or raw.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _stream_faults(broken: type[Exception], late: type[Exception]) -> Any:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except ssl.SSLCertVerificationError as error:
        raise broken(f"its certificate is not believed ({error.verify_message})") from error
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError) as error:
        raise broken(f"the connection was lost ({type(error).__name__})") from error
