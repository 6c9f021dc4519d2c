"""Time as the server keeps it: milliseconds since the epoch, UTC. Everything that needs time is given a `Clock`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

DAY_MS = 86_400_000

Clock = Callable[[], int]
"""Returns milliseconds since 1970-01-01 UTC."""


def system_clock() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    """`at_ms` as the wire shows it: ISO 8601, UTC, milliseconds, `Z`."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_iso_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(1024)  # events come many in a second, and the same tasks are shown again and again
def _iso_second(at_seconds: int) -> str:
    return datetime.fromtimestamp(at_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso_or_none(at_ms: int | None) -> str | None:
    """Like `iso`, for a time that may not have come yet."""
    return None if at_ms is None else iso(at_ms)
