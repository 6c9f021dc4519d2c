"""Waiting for a watcher's event."""

import asyncio

import pytest

from beray.server.events.wakeups import wait_changed
from tests.support.waiting import begun


async def test_wait_that_is_cancelled_when_it_is_woken_ends_cancelled():
    """A loop around it would go on for ever, and the process that closes with it."""
    changed = asyncio.Event()
    [waiting] = await begun(wait_changed(changed, 60))

    changed.set()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_wait_tells_whether_it_was_woken():
    changed = asyncio.Event()

    assert not await wait_changed(changed, 0.001)
    changed.set()
    assert await wait_changed(changed, 60)
