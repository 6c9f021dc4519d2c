"""How the asynchronous client's requests reach the network: sessions of aiohttp, one for each event loop."""

import asyncio
import errno
import os
import select
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from beray import __version__
from beray.drivers.alike import MOST_COOKIES
from beray.drivers.patience import Patience
from beray.environment import certificates, named_certificates
from beray.protocol.access import Secret

KEPT_SECONDS: Final = 4.0  # a connection is used again within this; servers commonly close an idle one after 5 s


class Connections:
    """The sessions of a client: the caller's own, or one that is made at the first request in each event loop.

    Loops may run at the same time, in several threads.
    """

    def __init__(self, base_url: str, given: aiohttp.ClientSession | None) -> None:
        self.base_url = base_url
        self.is_given = given is not None
        self.proxy, self.proxy_headers = (None, None) if self.is_given else _proxy_for(base_url)
        self._given = given
        self._places: dict[asyncio.AbstractEventLoop, Place] = {}
        self._of_parent: Any = None
        self._pid = os.getpid()

    def at_hand(self) -> "Place | None":
        """What this event loop's calls go through, if that is there already."""
        return self._places.get(asyncio.get_running_loop()) if self._pid == os.getpid() else None

    async def place(self) -> "Place":
        """What this event loop's calls go through."""
        self._leave_those_of_parent()
        loop = asyncio.get_running_loop()
        self._forget_loops(lambda other: other.is_closed())
        patience = Patience()
        session = self._given
        if session is None:
            context = await asyncio.to_thread(_tls_context) if self._may_be_secure() else True
            if loop in self._places:  # another task has been here meanwhile
                return self._places[loop]
            session = _new_session(context, patience)
        place = self._places[loop] = Place(session, patience)
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


class Place(NamedTuple):
    """What the calls of an event loop share."""

    session: aiohttp.ClientSession
    patience: "Patience"


def _close_without_loop(connector: aiohttp.BaseConnector) -> None:
    """Close what can be closed at once; what a closing waits for happens in no loop any more."""
    with suppress(RuntimeError, StopIteration):  # the loop is closed; nothing was waited for
        closing: Any = connector.close().__await__()
        try:
            closing.send(None)
        finally:
            closing.close()


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

    def __init__(self, patience: Patience, **options: Any) -> None:
        super().__init__(**options)
        self._patience = patience

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent's."""
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol = connection.protocol
            if protocol is None or not (protocol.should_close or self._has_news(connection.transport)):
                self._patience.connected()
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


def _new_session(context: ssl.SSLContext | bool, patience: Patience) -> aiohttp.ClientSession:
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
