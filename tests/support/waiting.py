"""The ways to wait in a test: for a thing, with a deadline. Nothing else sleeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

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


def _check(deadline: float, seconds: float, what: str, found: object) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"waited {seconds} s for {what} in vain; last seen: {found!r}")
