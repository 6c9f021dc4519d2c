"""What both drivers do alike: headers, and how a failure is told. Neither HTTP library is known here."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final

from beray.base_client import Options
from beray.environment import add_trace_context
from beray.exceptions import BeRayException, NetworkError, ProtocolError, RequestTimeout
from beray.protocol.access import Access
from beray.protocol.calls import Call
from beray.protocol.effects import Send

IS_IT_RUNNING: Final = "Is it running, and base_url right?"

RENEWAL_SECONDS: Final = 300.0
"""How long a call waits for another's renewal of the token: a hook may ask a person. Then it keeps its refusal."""

_renewing: ContextVar[frozenset[int]] = ContextVar("_renewing", default=frozenset())

_LEAST_SECONDS = 0.001  # a timeout of 0 would mean something else


@contextmanager
def renewing(access: Access) -> Iterator[None]:
    """While the user's hook gets another token: what it calls with the same client asks for none."""
    mark = _renewing.set(_renewing.get() | {id(access)})
    try:
        yield
    finally:
        _renewing.reset(mark)


def is_renewing(access: Access) -> bool:
    """Whether this call comes from the hook that gets another token."""
    return id(access) in _renewing.get()


def request_headers(call: Call[Any], options: Options) -> dict[str, str]:
    """The headers of a request, but for its login."""
    headers = dict(call.headers)
    if options.language is not None:
        headers["Accept-Language"] = options.language
    add_trace_context(headers)
    return headers


def silence_seconds(send: Send, options: Options) -> float:
    """How long the server may be silent."""
    return options.stream_timeout if send.is_event_stream else options.read_timeout


def left_until(deadline: float) -> float:
    """Seconds until `deadline`; never 0."""
    return max(deadline - monotonic(), _LEAST_SECONDS)


def no_connection(what: str, reason: str) -> str:
    """What is said of a server that can't be reached."""
    return f"{what}: the server could not be reached: {reason}."


def too_late(method: str, url: str) -> RequestTimeout:
    """What is said of a call whose deadline has passed."""
    return RequestTimeout(f"{method} {url}: the answer was not there in time.", method=method, url=url)


def silence(method: str, url: str, seconds: float) -> RequestTimeout:
    """What is said of a body that stopped coming."""
    message = f"{method} {url}: nothing came for {seconds:g} s, no heartbeat either."
    hint = "If this is the stream of a server that sends no heartbeats, raise stream_timeout."
    return RequestTimeout(message, method=method, url=url, hint=hint)


def lost_body(call: Call[Any], *, url: str, target: str) -> ProtocolError:
    """What is said of a call that a redirect has turned into a GET: what was asked for has not been done."""
    return ProtocolError(
        f"{call.method} {url} was redirected to {target}, which loses its body. "
        "Give base_url as the server finally has it (https?)."
    )


def as_value(failure: BeRayException, *, cause: BaseException) -> NetworkError:
    """A flow decides about a network failure; any other error is for the caller at once."""
    if not isinstance(failure, NetworkError):
        raise failure from cause
    failure.__cause__ = cause  # what `raise ... from` would do
    return failure
