"""The ways to wait in a test: for a thing, with a deadline. Nothing else sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.01


def wait_until(look: Callable[[], T], *, seconds: float = 20.0, what: str = "it") -> T:
    """Look until there is something true, and return it; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        _check(deadline, seconds, what, found)
        time.sleep(LOOK_SECONDS)


async def until(look: Callable[[], T | Awaitable[T]], *, seconds: float = 20.0, what: str = "it") -> T:
    """`wait_until` on an event loop; `look` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        found: T = await seen if inspect.isawaitable(seen) else seen
        if found:
            return found
        _check(deadline, seconds, what, found)
        await asyncio.sleep(LOOK_SECONDS)


def _check(deadline: float, seconds: float, what: str, found: object) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"waited {seconds} s for {what} in vain; last seen: {found!r}")
