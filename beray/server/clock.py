"""Time as the server keeps it: milliseconds since the epoch, UTC. Everything that needs time is given a `Clock`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

DAY_MS = 86_400_000

Clock = Callable[[], int]
"""Returns milliseconds since 1970-01-01 UTC."""


def system_clock() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    """`at_ms` as the wire shows it: ISO 8601, UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def iso_or_none(at_ms: int | None) -> str | None:
    """Like `iso`, for a time that may not have come yet."""
    return None if at_ms is None else iso(at_ms)
