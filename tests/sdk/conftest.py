"""`peer` is a scripted server, `peer_client` a client of it that doesn't really wait between attempts."""

from collections.abc import Iterator

import pytest

from beray.client import BeRayClient
from tests.support.loopback import LoopbackServer, loopback_server


@pytest.fixture
def peer() -> Iterator[LoopbackServer]:
    """A server that gives the answers of the test's script."""
    with loopback_server() as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the client would have waited between attempts."""
    seconds: list[float] = []
    monkeypatch.setattr("beray.client.sleep", seconds.append)
    return seconds


@pytest.fixture
def peer_client(peer: LoopbackServer, waits: list[float]) -> Iterator[BeRayClient]:
    """A client of `peer`, logged in."""
    with BeRayClient(peer.url, token="t0k", timeout=5.0) as client:
        yield client
