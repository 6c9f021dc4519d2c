"""What both clients are: an address, options, a token. What they can do is in `client.py` and `async_client.py`."""

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, ClassVar, Final, Self

from beray.base_url import normalize_base_url
from beray.environment import LOG, place_from, start_logging
from beray.exceptions import NotConfigured
from beray.protocol.access import Access, header_value
from beray.protocol.effects import Conditions, Learned
from beray.protocol.retry import RetryPolicy
from beray.protocol.watching import RequestInfo, ResponseInfo, Watch

Timeout = float | tuple[float, float]

UNSET: Final[Any] = object()
"""Of `with_options`: leave it as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How calls are made; checked when a client is made. Their meaning is told at `BeRayClient`."""

    connect_timeout: float
    read_timeout: float
    stream_timeout: float
    max_retries: int
    deadline: float | None = None
    language: str | None = None
    on_token_expired: Callable[[], Any] | None = None
    on_request: Callable[[RequestInfo], object] | None = None
    on_response: Callable[[ResponseInfo], object] | None = None

    @classmethod
    def checked(cls, *, timeout: Timeout, **others: Any) -> Self:
        """Options as a caller gave them.

        Raises:
            ValueError: One can't be right.
        """
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        options = cls(connect_timeout=_seconds("timeout", connect), read_timeout=_seconds("timeout", read), **others)
        _seconds("stream_timeout", options.stream_timeout)
        if options.deadline is not None:
            _seconds("deadline", options.deadline)
        if options.language is not None:
            header_value("language", options.language)
        if options.max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more; got {options.max_retries}")
        return options

    @property
    def policy(self) -> RetryPolicy:
        """How often and how patiently calls are repeated."""
        policy = RetryPolicy(max_retries=self.max_retries)
        return policy if self.deadline is None else replace(policy, deadline_seconds=self.deadline)


class BaseClient:
    """Address, options and token of a client."""

    _driver: Any
    """What does the effects of its flows; has `close`, `with_options` and `is_borrowed`."""

    _new_driver: Callable[..., Any]
    """Makes one from a session of the caller's, or None."""

    _OPTION_NAMES: ClassVar = tuple(field.name for field in fields(Options))

    def __init__(self, base_url: str, token: str | None, options: Options) -> None:
        self._base_url = normalize_base_url(base_url)
        self._options = options
        self._start(token)

    def _start(self, token: str | None) -> None:
        """Begin what belongs to this process."""
        start_logging(os.environ)
        self._access = Access(lambda: datetime.now(UTC), renew=self._options.on_token_expired)
        self._access.set(token)
        self._learned = Learned()
        self._conditions = self._conditions_of(self._options)

    def _conditions_of(self, options: Options) -> Conditions:
        return Conditions(
            policy=options.policy,
            clock=monotonic,
            random=random.random,
            language=options.language,
            learned=self._learned,
            base_url=self._base_url,
            access=self._access,
            watch=_watch_of(options),
            deadline_seconds=options.deadline,
        )

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client of the server that the environment names.

        In this order: `BERAY_BASE_URL` (with `BERAY_TOKEN`, else the login that `beray login` keeps for that server);
        the server of the last `beray login`; the background server of `beray run` on this machine, while it runs and
        no `BERAY_TOKEN` is set.

        Args:
            **options: Those of the client itself, such as `timeout`; a `token` counts before all others.

        Raises:
            NotConfigured: There is none; says what to set.
        """
        try:
            place = place_from(os.environ)
        except NotConfigured as error:  # without the frames that hold the environment, tokens included
            raise error.with_traceback(None) from None
        return cls(place.base_url, **{"token": place.token, **options})

    @property
    def base_url(self) -> str:
        """The server's root, without `/api/v1`."""
        return self._base_url

    @property
    def token(self) -> str | None:
        """The access token that calls carry; None when not logged in."""
        return None if self._access.token is None else str(self._access.token)

    @property
    def token_expires_at(self) -> datetime | None:
        """When the token ends (UTC, by this machine's clock); None where that isn't known."""
        return self._access.expires_at

    def set_token(self, token: str | None, *, expires_in: float | None = None) -> None:
        """Use `token` for the calls that follow; None forgets it.

        Args:
            token: An access token or an API token.
            expires_in: Seconds until it ends, where that is known.

        Raises:
            ValueError: It holds characters that no token has.
        """
        self._access.set(token, expires_in=expires_in)

    def with_options(
        self,
        *,
        timeout: Timeout = UNSET,
        stream_timeout: float = UNSET,
        max_retries: int = UNSET,
        deadline: float | None = UNSET,
        language: str | None = UNSET,
    ) -> Self:
        """The same client with other options, for one call or a few: `client.with_options(timeout=5).get_task(7)`.

        It shares connections and token with this one, and is closed with it.

        Raises:
            ValueError: An option can't be right.
        """
        before = {name: getattr(self._options, name) for name in self._OPTION_NAMES}
        both = (before.pop("connect_timeout"), before.pop("read_timeout"))
        wanted = {
            "stream_timeout": stream_timeout,
            "max_retries": max_retries,
            "deadline": deadline,
            "language": language,
        }
        changed = {name: value for name, value in wanted.items() if value is not UNSET}
        options = Options.checked(timeout=both if timeout is UNSET else timeout, **{**before, **changed})
        other = object.__new__(type(self))  # `copy` would make it anew, as for another process
        other.__dict__.update(self.__dict__)
        other._options = options
        other._conditions = self._conditions_of(options)
        other._driver = self._driver.with_options(options)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r}, {'with' if self.token else 'without'} token)"

    def __getstate__(self) -> dict[str, Any]:
        """Another process gets a client with connections of its own. The token goes along."""
        if self._driver.is_borrowed:
            raise TypeError(
                "a client with a session of your own can't be pickled; make the client in the other process"
            )
        of_process = ("_driver", "_conditions", "_learned", "_access")
        kept = {name: value for name, value in self.__dict__.items() if name not in of_process}
        return {**kept, "token": self.token, "expires_at": self.token_expires_at}

    def __setstate__(self, state: dict[str, Any]) -> None:
        token, expires_at = state.pop("token"), state.pop("expires_at")
        self.__dict__.update(state)
        self._start(token)
        self._access.expires_at = expires_at
        self._driver = self._new_driver(None)


def _watch_of(options: Options) -> Watch | None:
    before = () if options.on_request is None else (options.on_request,)
    after = () if options.on_response is None else (options.on_response,)
    if LOG.isEnabledFor(logging.INFO):
        after = (*after, _log_response)
    return Watch(before, after) if before or after else None


def _log_response(info: ResponseInfo) -> None:
    """One line a request; at DEBUG also how to do it with curl. Headers and bodies are left out: they hold secrets."""
    request = info.request
    outcome = info.error if info.status_code is None else info.status_code
    again = "" if request.attempt == 1 else f", attempt {request.attempt}"
    LOG.info(
        "%s %s: %s in %.0f ms (request %s%s)",
        request.method,
        request.url,
        outcome,
        info.elapsed_seconds * 1000,
        info.request_id or "unknown",
        again,
    )
    LOG.debug("curl -X %s -H 'Authorization: Bearer ***' '%s'", request.method, request.url)


def _seconds(name: str, seconds: float) -> float:
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be a number of seconds above 0; got {seconds!r}")
    return float(seconds)
