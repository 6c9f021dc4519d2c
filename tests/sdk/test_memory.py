"""Clients that come and go leave nothing behind."""

import asyncio
import gc
from collections.abc import Callable

import pytest

from beray.async_client import AsyncBeRayClient
from beray.client import BeRayClient
from tests.support.loopback import LoopbackServer, reply
from tests.support.waiting import wait_until

MOST_OBJECTS = 500  # less than one for each of the thousand clients


def use_and_close(url: str) -> None:
    with BeRayClient(url, "t0k") as client:
        client.list_tasks()


def use_and_forget(url: str) -> None:
    BeRayClient(url, "t0k").list_tasks()


def use_asynchronously(url: str) -> None:
    asyncio.run(_use_and_close(url))


async def _use_and_close(url: str) -> None:
    async with AsyncBeRayClient(url, "t0k") as client:
        await client.list_tasks()


@pytest.mark.parametrize("use", [use_and_close, use_and_forget, use_asynchronously])
def test_a_thousand_clients_leave_nothing_behind(peer: LoopbackServer, use: Callable[[str], None]) -> None:
    peer.always(reply(200, []))

    def make(count: int) -> None:
        for _ in range(count):
            use(peer.url)
            peer.received.clear()

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    make(20)
    before = objects()
    make(1000)

    wait_until(lambda: objects() - before < MOST_OBJECTS, what="the objects to be gone, the server's threads' too")
