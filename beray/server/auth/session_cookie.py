"""A login in a browser: the session's token in a cookie that no script can read.

A browser sends a cookie along with whatever any page asks of us, so a cookie alone proves no intent. SameSite keeps
other sites out, but a site has many origins (another port, a neighbour's name). So what changes something must come
from a page of ours: the browser says which by `Origin`, which no page can forge. What only reads is refused where the
browser says that a page of another origin asks (`Sec-Fetch-Site`); without that header nobody else can read the answer.

An API token in a cookie is worth nothing: only a login makes one.
"""

import re
from typing import Final

from starlette.requests import HTTPConnection

from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.tokens import PREFIX
from beray.server.errors import Refused

NAME: Final = "beray_session"
SECURE_NAME: Final = f"__Host-{NAME}"  # a browser takes it over TLS only, and from no other host of the site
CONSOLE_HEADER: Final = "X-BeRay-Console"
"""With it a login sets the cookie, and does not show the token."""

_SESSION: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
_ORIGIN: Final = re.compile(r"(https?)://([^/@?#\\\s]+)")
_DEFAULT_PORT: Final = {"http": ":80", "https": ":443"}
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS: Final = frozenset({"same-origin", "none"})  # none: a person has asked for it, by the address bar or a bookmark


def cookie_token(request: HTTPConnection, clients: ClientAddresses) -> str | None:
    """The session's token in a request's cookie; None unless there is exactly one.

    Raises:
        Refused: `origin_mismatch`: it is not a page of ours that asks.
    """
    name = SECURE_NAME if clients.is_https(request) else NAME
    lines = request.headers.getlist("cookie")
    pairs = [pair.strip().partition("=") for line in lines for pair in line.split(";")]
    values = [value for found, _, value in pairs if found == name]
    if len(values) != 1 or _SESSION.fullmatch(values[0]) is None:
        return None
    _check_reader(request)
    if request.scope["method"] not in _READING:
        check_origin(request, clients)
    return values[0]


def check_origin(request: HTTPConnection, clients: ClientAddresses) -> None:
    """Make sure that a page of this very server asks.

    Raises:
        Refused: `origin_mismatch`.
    """
    origins, hosts = request.headers.getlist("origin"), request.headers.getlist("host")
    origin = _ORIGIN.fullmatch(origins[0].lower()) if len(origins) == 1 and len(hosts) == 1 else None
    if origin is None:
        raise Refused("origin_mismatch")
    scheme, host = origin.groups()
    if host != hosts[0].lower().removesuffix(_DEFAULT_PORT[scheme]):
        raise Refused("origin_mismatch")
    if scheme != "https" and clients.is_https(request):  # anybody on the way could have sent it
        raise Refused("origin_mismatch")


def session_cookie(request: HTTPConnection, clients: ClientAddresses, token: str, *, seconds: int) -> str:
    """The `Set-Cookie` that keeps a session's token in the browser for so long; 0: not any more."""
    attributes = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    if clients.is_https(request):
        return f"{SECURE_NAME}={token}; {attributes}; Secure"
    return f"{NAME}={token}; {attributes}"


def _check_reader(request: HTTPConnection) -> None:
    if any(site not in _OURS for site in request.headers.getlist("sec-fetch-site")):
        raise Refused("origin_mismatch")
