"""`AsyncBeRayClient` is `BeRayClient` to be awaited: the same surface, and the same behaviour where aiohttp does the work."""

import asyncio
import inspect
import pickle
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from beray import (
    AsyncBeRayClient,
    AuthenticationError,
    BeRayClient,
    ConnectionFailed,
    ProtocolError,
    RequestTimeout,
    TLSError,
)
from tests.support.loopback import CUT, Exchange, LoopbackServer, reply


def surface(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Public methods with the names, kinds and defaults of their parameters."""
    found = {}
    for name, member in inspect.getmembers(client, callable):
        if not name.startswith("_") or name == "__init__":
            parameters = inspect.signature(member).parameters.values()
            found[name] = [(one.name, one.kind, one.default) for one in parameters]
    return found


def test_both_clients_have_the_same_surface() -> None:
    assert surface(AsyncBeRayClient) == surface(BeRayClient)


def test_what_blocks_there_is_awaited_here() -> None:
    for name in surface(BeRayClient):
        if name == "__init__" or hasattr(BeRayClient.__mro__[1], name):
            continue
        there, here = getattr(BeRayClient, name), getattr(AsyncBeRayClient, name)
        is_iterator = "Iterator" in str(inspect.signature(there).return_annotation)
        assert inspect.iscoroutinefunction(here) is not is_iterator, name


def test_both_say_the_same_in_their_first_line() -> None:
    for name in surface(BeRayClient):
        there, here = getattr(BeRayClient, name).__doc__, getattr(AsyncBeRayClient, name).__doc__
        if name != "__init__":
            assert (there or "").split("\n\n")[0] == (here or "").split("\n\n")[0], name


@pytest.fixture
async def client(peer: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncBeRayClient]:
    """A client of `peer`, logged in, that doesn't really wait between attempts."""
    real_sleep = asyncio.sleep

    async def no_wait(seconds: float) -> None:
        await real_sleep(0)

    monkeypatch.setattr("beray.async_driver.asyncio.sleep", no_wait)
    async with AsyncBeRayClient(peer.url, token="t0k", timeout=5.0) as client:
        yield client


async def test_a_call_carries_the_token_and_gives_the_json(peer: LoopbackServer, client: AsyncBeRayClient) -> None:
    peer.script(reply(200, {"id": 7}))

    assert await client.get_task(7, events="none") == {"id": 7}

    received = peer.received[0]
    assert (received.method, received.path) == ("GET", "/api/v1/tasks/7?events=none")
    assert received.headers["authorization"] == "Bearer t0k"
    assert received.headers["user-agent"].startswith("beray/")
