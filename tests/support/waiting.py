"""The one way to wait in a test: for a thing, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(look: Callable[[], T], *, seconds: float = 20.0, what: str = "it") -> T:
    """Look until there is something true, and return it; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what} in vain; last seen: {found!r}")
        time.sleep(0.01)
