"""The token that calls carry, and what is known of its end."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

EARLY: Final = timedelta(seconds=5)  # a call that begins now still arrives with a good token

_MOST_SECONDS: Final = 1e9  # thirty years; a calendar ends at some point


class Secret(str):
    """Text that no log, `repr` or traceback shows by accident; used like any other text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Access:
    """Who a client is at the moment; shared by the copies that `with_options` makes.

    Args:
        now: The time, aware.

    Attributes:
        token: The access token, or None.
        authorization: The header that carries it, or None.
        expires_at: When it ends, where the server has said that.
        renew: What the user's program does to get another token; None where nothing was given.
    """

    def __init__(self, now: Callable[[], datetime], *, renew: Callable[[], Any] | None = None) -> None:
        self._now = now
        self.token: Secret | None = None
        self.authorization: Secret | None = None
        self.expires_at: datetime | None = None
        self.renew = renew

    def set(self, token: str | None, *, expires_in: float | None = None) -> None:
        """Use `token` from now on, which ends in `expires_in` seconds.

        Raises:
            ValueError: It holds characters that no token has.
        """
        checked = None if token is None else Secret(header_value("token", token))
        # First its end: a thread that sees the new token with the old one's end would ask for yet another.
        self.expires_at = None if token is None or expires_in is None else self._end(expires_in)
        self.authorization = None if checked is None else Secret(f"Bearer {checked}")
        self.token = checked

    def _end(self, seconds: float) -> datetime | None:
        """When `seconds` are over; None where that is beyond all use, or no number (a server may say anything)."""
        if not -_MOST_SECONDS <= seconds <= _MOST_SECONDS:
            return None
        return self._now() + timedelta(seconds=seconds)

    @property
    def is_expired(self) -> bool:
        """Whether the token is known to have ended, or does within seconds."""
        return self.expires_at is not None and self.expires_at - EARLY <= self._now()


def header_value(name: str, value: str) -> str:
    """`value`, if it may stand in a header.

    Raises:
        ValueError: It may not; names `name` alone, since the value may be a secret.
    """
    if not (isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip() and value):
        raise ValueError(f"{name} must be printable ASCII without spaces around it")
    return value
