"""The ways to wait in a test: for a thing, with a deadline. Nothing else sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.01
REST_SECONDS = 0.05  # between looks for what takes long: a look is often a request, which keeps two processes busy


def wait_until(look: Callable[[], T], *, seconds: float = 20.0, what: str = "it") -> T:
    """Look until there is something true, and return it; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        time.sleep(_pause(deadline, seconds, what, found))


async def until(look: Callable[[], T | Awaitable[T]], *, seconds: float = 20.0, what: str = "it") -> T:
    """`wait_until` on an event loop; `look` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        found: T = await seen if inspect.isawaitable(seen) else seen
        if found:
            return found
        await asyncio.sleep(_pause(deadline, seconds, what, found))


async def begun(*works: Coroutine[Any, Any, T]) -> list[asyncio.Task[T]]:
    """The works as tasks, each of which has come to its first wait."""
    count = 0

    async def run(work: Coroutine[Any, Any, T]) -> T:
        nonlocal count
        count += 1
        return await work

    tasks = [asyncio.create_task(run(work)) for work in works]
    await until(lambda: count == len(works), what="all to have begun")
    return tasks


def _pause(deadline: float, seconds: float, what: str, found: object) -> float:
    """How long until the next look; a failure when the time is up."""
    left = deadline - time.monotonic()
    if left < 0:
        raise AssertionError(f"waited {seconds} s for {what} in vain; last seen: {found!r}")
    waited = seconds - left
    return min(REST_SECONDS, LOOK_SECONDS + waited / 20)
