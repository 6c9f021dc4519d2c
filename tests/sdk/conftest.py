"""`peer` is a scripted server, `peer_client` a client of it that doesn't really wait between attempts."""

from collections.abc import Iterator

import pytest

from beray.client import BeRayClient
from tests.support.loopback import LoopbackServer, loopback_server


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


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the client would have waited between attempts."""
    seconds: list[float] = []
    monkeypatch.setattr("beray.driver.sleep", seconds.append)
    return seconds


@pytest.fixture
def peer_client(peer: LoopbackServer, waits: list[float]) -> Iterator[BeRayClient]:
    """A client of `peer`, logged in."""
    with BeRayClient(peer.url, token="t0k", timeout=5.0) as client:
        yield client
