"""Time as the server keeps it: milliseconds since the epoch, UTC. Everything that needs time is given a `Clock`."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

DAY_MS = 86_400_000

Clock = Callable[[], int]
"""Returns milliseconds since 1970-01-01 UTC."""


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC is added as text: with a zone it costs twice the time


def system_clock() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    """`at_ms` as the wire shows it: ISO 8601, UTC, milliseconds, `Z`."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds") + "Z"


def iso_or_none(at_ms: int | None) -> str | None:
    """Like `iso`, for a time that may not have come yet."""
    return None if at_ms is None else iso(at_ms)
