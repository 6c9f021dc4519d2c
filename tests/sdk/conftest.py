from collections.abc import Iterator

import pytest

from beray.client import BeRayClient
from tests.support.loopback import LoopbackServer, loopback_server


@pytest.fixture
def peer() -> Iterator[LoopbackServer]:
    """A scripted server."""
    with loopback_server() as server:
        yield server


@pytest.fixture
def client(peer: LoopbackServer) -> Iterator[BeRayClient]:
    """A client of `peer` that is logged in."""
    with BeRayClient(peer.url, token="t0k", timeout=5.0) as client:
        yield client


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the client would have waited between attempts; it does not."""
    seconds: list[float] = []
    monkeypatch.setattr("beray.client.time.sleep", seconds.append)
    return seconds
