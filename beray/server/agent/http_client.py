"""The HTTP client under a provider's: its deadlines, and no proxy for this machine. Imports the HTTP library."""

import ssl
from functools import cache
from urllib.parse import urlsplit

import httpx2

from beray.server.agent.models import ModelChoice

CONNECT_TIMEOUT_SECONDS = 10
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def timeout_of(choice: ModelChoice) -> httpx2.Timeout:
    """How long to connect, and how long the server may be silent."""
    return httpx2.Timeout(choice.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)


def http_client(choice: ModelChoice) -> httpx2.AsyncClient:
    """A client that asks no proxy for loopback; who is given it closes it."""
    is_loopback = urlsplit(choice.base_url or "").hostname in LOOPBACK_HOSTS
    return httpx2.AsyncClient(
        verify=_trusted(), trust_env=not is_loopback, timeout=timeout_of(choice), follow_redirects=True
    )


@cache
def _trusted() -> ssl.SSLContext:
    """Whose certificates count. Made once: it takes 10 ms of processor time."""
    return httpx2.create_ssl_context()
