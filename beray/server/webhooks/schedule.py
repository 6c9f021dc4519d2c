"""When a message that was not taken is tried again. Does no I/O."""

from typing import Final

AGAIN_SECONDS: Final = (5, 300, 1_800, 7_200, 18_000, 36_000)
"""After the first attempt, the second, ...: some 18 hours in all, as the specification's example begins."""

SPREAD: Final = 0.2  # what failed together does not come back together
ASKED_MOST_SECONDS: Final = 43_200.0  # a receiver may ask for later, but not for so late that nobody thinks of it
GONE: Final = 410
PUTS_OFF: Final = frozenset({429, 503})
"""Statuses whose `Retry-After` counts."""


def next_try_ms(attempts: int, *, status: int | None, asked_seconds: float | None, random: float) -> int | None:
    """Milliseconds until the next attempt; None: there is none.

    Args:
        attempts: How many there have been.
        status: What the receiver answered; None: nothing.
        asked_seconds: Its `Retry-After`.
        random: From 0 to 1.
    """
    if status == GONE or attempts > len(AGAIN_SECONDS):
        return None
    seconds = AGAIN_SECONDS[attempts - 1] * (1 + SPREAD * random)
    if status in PUTS_OFF and asked_seconds is not None:
        seconds = max(seconds, min(asked_seconds, ASKED_MOST_SECONDS))
    return int(seconds * 1000)
