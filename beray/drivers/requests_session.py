"""How the SDK's requests reach the network: a `requests.Session` that does less work per call.

Stock requests reads proxy variables and .netrc again for every call, parses a URL that was just made, merges cookie
jars that are empty, and looks its pool up by building a key of a dozen parts. Here that is done once, where the
answer can't change: for calls below the client's own `base_url`, without proxy, cookies or special options. Whatever
else comes along (proxies, files, hooks) takes the stock way. `Session.request`, `Session.send` and
`HTTPAdapter.send` stay stock, so that libraries which replace them in tests go on working.

What a hostile server could make endless is bounded: heads, interim answers, trailers, cookies. A redirect is judged
before it is followed.

The environment (proxies, REQUESTS_CA_BUNDLE) is read once, when the session is made.
"""

import http.client
import io
from time import monotonic
from typing import Any, BinaryIO, Final, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from beray import __version__
from beray.drivers.alike import MOST_COOKIES, QUESTIONS, check_redirect, left_until
from beray.exceptions import ProtocolError
from beray.protocol.access import Secret

_MOST_HEADS: Final = 16  # of an answer: its own, and those of interim ones (1xx)
_MOST_TRAILERS: Final = 100
_MOST_LINE_BYTES: Final = 65536
_TRIFLE_SECONDS: Final = 0.1  # not worth two system calls to wait so much less
_MOST_COOKIE_CHARACTERS: Final = 4096

POOL_SIZE: Final = (
    32  # connections kept for reuse: more threads than this on one client still work, with fresh connections
)


class BearerAuth(requests.auth.AuthBase):
    """Sets the token's header (`Access.authorization`), and keeps requests from putting a password of .netrc there."""

    def __init__(self, authorization: Secret | None) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header, if there is a token."""
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization
        return request


class _FewCookies(RequestsCookieJar):
    """Takes the cookies of a load balancer, and of a login page; not as many as a server could send."""

    def set_cookie(self, cookie: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep a cookie, if there is room."""
        if len(cookie.value or "") <= _MOST_COOKIE_CHARACTERS and len(self) < MOST_COOKIES:
            super().set_cookie(cookie, *args, **kwargs)


class Until(urllib3.Timeout):
    """Seconds to connect and seconds of silence, but not beyond a deadline; each redirect has what is left then."""

    def __init__(self, connect: float, read: float, *, deadline: float) -> None:
        super().__init__(connect=connect, read=read)
        self._seconds = (connect, read)
        self._deadline = deadline

    def clone(self) -> "Until":
        """Another one, for one request."""
        connect, read = self._seconds
        return Until(connect, read, deadline=self._deadline)

    @property
    def connect_timeout(self) -> float:
        """Seconds to connect, from now on."""
        return min(self._seconds[0], left_until(self._deadline))

    @property
    def read_timeout(self) -> float:
        """Seconds the server may be silent, from now on."""
        return min(self._seconds[1], left_until(self._deadline))


class TunedSession(requests.Session):
    """A session for one server.

    Args:
        base_url: As `normalize_base_url` gives it; calls below it take the short way.
    """

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._prefix = f"{base_url}/"
        self.cookies = _FewCookies()
        self.headers["User-Agent"] = f"beray/{__version__} {requests.utils.default_user_agent()}"
        self.mount("https://", TunedAdapter(pool_maxsize=POOL_SIZE))
        self.mount("http://", TunedAdapter(pool_maxsize=POOL_SIZE))
        self._environment: Any = super().merge_environment_settings(self._prefix, {}, None, None, None)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """The settings read at the start, for calls that bring none of their own."""
        if proxies or verify is not None or cert is not None or not self._is_ours(url):
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        proxies = dict(self._environment["proxies"])  # a copy: a redirect changes it
        return {**self._environment, "proxies": proxies, "stream": bool(stream)}

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare without parsing and merging, where there is nothing to parse and merge."""
        if not self._is_simple(request):
            return super().prepare_request(request)
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = CaseInsensitiveDict(cast(Any, self.headers))
        prepared.headers.update(request.headers)
        cast(Any, prepared)._cookies = RequestsCookieJar()  # redirects copy it
        prepared.hooks = {"response": []}
        body = request.data or None
        prepared.body = cast(Any, body)
        if body is not None:
            prepared.headers["Content-Length"] = str(len(cast(bytes, body)))
        elif request.method not in QUESTIONS:
            prepared.headers["Content-Length"] = "0"
        return cast(BearerAuth, request.auth)(prepared)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where a redirect leads to, if it may; its body, which requests would read to its end, is left."""
        if not resp.is_redirect:
            return None
        try:
            target = super().get_redirect_target(resp)
            url = urljoin(resp.url, target or "")
            _ = urlsplit(url).port  # which is looked at later, where a ValueError would not be taken for what it is
            check_redirect(cast(str, resp.request.method), resp.url, url)
        except ValueError as error:
            resp.close()
            raise requests.exceptions.InvalidURL(f"it was redirected to what is no URL: {error}") from error
        except ProtocolError:
            resp.close()
            raise
        _leave_body(resp)
        return target

    def _is_simple(self, request: requests.Request) -> bool:
        return (
            isinstance(request.auth, BearerAuth)
            and self._is_ours(request.url)
            and (not request.data or isinstance(request.data, bytes))
            and not (request.files or request.params or request.cookies or request.json)
            and not (self.params or self.cookies or self.auth)
            and not any(request.hooks.values())
            and not any(self.hooks.values())
        )

    def _is_ours(self, url: Any) -> bool:
        return isinstance(url, str) and url.startswith(self._prefix)


def _leave_body(response: requests.Response) -> None:
    """Count the body as read; without one the connection serves the next call."""
    is_read = cast(Any, response._content) is not False  # what it is at first
    if is_read or response.headers.get("Content-Length") == "0":
        return
    response.close()  # before it counts as read: then its connection would be used again
    response._content = b""
    cast(Any, response)._content_consumed = True  # what `response.content` sets


class TunedAdapter(HTTPAdapter):
    """Finds the pool of a server by its origin. Thread-safe, as its parent is."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools anew; called by the parent's constructor and after unpickling."""
        self._pools: dict[tuple[Any, ...], Any] = {}
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """The pools of a proxy; those of a SOCKS proxy are its library's."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if type(manager) is urllib3.ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close every connection."""
        self._pools.clear()
        super().close()

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """The pool for the request's origin and TLS settings; a proxied request takes the stock way."""
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        key = (_origin(request.url), verify, cert)
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # closed: the manager keeps only the pools used last
            pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            self._pools[key] = pool
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Set the pool's certificates; there are none on a plain connection."""
        if cert or not url.startswith("http://"):
            cast(Any, super()).cert_verify(conn, url, verify, cert)

    def request_url(self, request: Any, proxies: Any) -> str:
        """Path and query, unless a proxy needs more."""
        if proxies:
            return super().request_url(request, proxies)
        return cast(str, request.path_url)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """The response; its cookies are looked for only where one is set."""
        if "Set-Cookie" in resp.headers:
            return super().build_response(req, resp)
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.encoding = requests.utils.get_encoding_from_headers(response.headers)
        response.raw = resp
        response.reason = resp.reason
        response.url = cast(str, req.url)
        response.request = req
        response.connection = self
        return response


class Reader(io.RawIOBase):
    """A connection's bytes, with an end to the waiting for them.

    The standard library waits for each piece anew, so that a server which sends a byte now and then is never given up.

    Attributes:
        end: When what is being read must be there, by `time.monotonic`; None: only silence ends the waiting.
        has_ended: The connection's end has been read.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source = source
        self._socket = source._sock
        seconds = self._socket.gettimeout()
        self.end: float | None = None if seconds is None else monotonic() + seconds
        self.has_ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As that of a socket's file, by `end` at most."""
        count = self._source.readinto(buffer) if self.end is None else self._read_by(self.end, buffer)
        self.has_ended = count == 0
        return cast("int | None", count)

    def _read_by(self, end: float, buffer: Any) -> Any:
        left = end - monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not there in time")
        usual = self._socket.gettimeout()
        if usual is not None and left > usual - _TRIFLE_SECONDS:
            return self._source.readinto(buffer)
        self._socket.settimeout(left)
        try:
            return self._source.readinto(buffer)
        finally:
            self._socket.settimeout(usual)

    def close(self) -> None:
        """Close the socket's file."""
        if not self.closed:
            self._source.close()
        super().close()


class _HTTPResponse(http.client.HTTPResponse):
    """Refuses a head that was cut, or does not end; passes over what is said before it (1xx).

    The standard library takes the connection's end for the head's end, and so a cut answer for one with an empty body.
    It passes over `100 Continue` alone, and that for ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = Reader(cast(Any, self.fp).detach())
        self.fp = cast(Any, io.BufferedReader(self._reader))
        self._heads = 0

    def begin(self) -> None:
        """Read the head: all of it within the time that the server may be silent."""
        super().begin()
        self._reader.end = None
        if self._reader.has_ended:
            raise http.client.RemoteDisconnected("the connection ended within the head of the answer")

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            self._heads += 1
            if self._heads > _MOST_HEADS:
                raise http.client.HTTPException("interim answers do not end")
            line: tuple[str, int, str] = cast(Any, super())._read_status()
            if not 101 < line[1] < 200:  # those two are others' to judge
                return line
            http.client.parse_headers(cast(Any, self.fp))

    def _read_and_discard_trailer(self) -> None:
        """Pass over what follows a chunked body, as the standard library does; but not for ever."""
        for _ in range(_MOST_TRAILERS):
            if cast(BinaryIO, self.fp).readline(_MOST_LINE_BYTES) in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException("what follows the answer does not end")


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _HTTPResponse


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = _HTTPResponse


class _HTTPConnectionPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSConnectionPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPConnectionPool, "https": _HTTPSConnectionPool}


def _origin(url: str) -> str:
    start = url.index("//") + 2
    end = min((at for mark in "/?#" if (at := url.find(mark, start)) != -1), default=len(url))
    return url[:end]
