"""`peer` is a scripted server, `peer_client` a client of it that doesn't really wait between attempts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from beray.client import BeRayClient
from tests.support.blocking import BlockingClient
from tests.support.loopback import LoopbackServer, loopback_server

MakeClient = Callable[..., BeRayClient]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates of the machine's own."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def peer() -> Iterator[LoopbackServer]:
    """A server that gives the answers of the test's script."""
    with loopback_server() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def client_kind(request: pytest.FixtureRequest) -> str:
    """Which client a test is about; a module that is about one alone overrides this."""
    return str(request.param)


@pytest.fixture
def new_client(client_kind: str) -> Iterator[MakeClient]:
    """Makes clients of the kind, the asynchronous one behind the calls of the other; they are closed at the end."""
    kind: Any = BeRayClient if client_kind == "sync" else BlockingClient
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(kind(*arguments, **options))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the client would have waited between attempts."""
    seconds: list[float] = []

    async def note(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr("beray.drivers.on_requests.sleep", seconds.append)
    monkeypatch.setattr("beray.drivers.on_aiohttp.sleep", note)
    return seconds


@pytest.fixture
def peer_client(
    peer: LoopbackServer, waits: list[float], new_client: Callable[..., BeRayClient]
) -> Iterator[BeRayClient]:
    """A client of `peer`, logged in."""
    return new_client(peer.url, token="t0k", timeout=5.0)
