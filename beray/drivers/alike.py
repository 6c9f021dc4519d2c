"""What both drivers do alike: headers, bounds, redirects, renewals, and how a failure is told.

Neither HTTP library is known here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from beray.base_client import Options
from beray.environment import add_trace_context
from beray.exceptions import BeRayException, NetworkError, ProtocolError, RequestTimeout
from beray.protocol.access import Access
from beray.protocol.calls import Call
from beray.protocol.effects import Send

IS_IT_RUNNING: Final = "Is it running, and base_url right?"

MAX_ANSWER_BYTES: Final = 64 << 20
"""Of an answer that is JSON, unpacked; a task of a thousand steps with all its events has less. Else a server, or
what stands before it, could fill the memory."""

MAX_REFUSAL_BYTES: Final = 1 << 20
"""Of an answer that is no success; the rest, mostly of a proxy's page, is left unread."""

QUESTIONS: Final = ("GET", "HEAD")
"""Methods of calls that only ask: what they bring may be sent on to wherever a redirect leads."""

MOST_REDIRECTS: Final = 30  # as many as requests follows
MOST_COOKIES: Final = 50  # kept; no load balancer needs more

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


def most_bytes(call: Call[Any], status: int) -> int | None:
    """How much of an answer's body is taken; None: all of it."""
    if not (200 <= status < 300 or status in call.accepted):
        return MAX_REFUSAL_BYTES
    return None if call.is_file else MAX_ANSWER_BYTES


def check_size(call: Call[Any], *, url: str, most: int) -> None:
    """Refuse an answer that is larger than `most`, unless that is a refusal, of which the beginning will do.

    Raises:
        ProtocolError: It is one.
    """
    if most == MAX_ANSWER_BYTES:
        raise ProtocolError(
            f"{call.method} {url} was answered with more than {most >> 20} MiB, which is not read. "
            "Ask for less: get_task(events='tail:100'), or fewer tasks at once."
        )


def lost_body(call: Call[Any], *, url: str, target: str) -> ProtocolError:
    """What is said of a call that a redirect has turned into a GET: what was asked for has not been done."""
    return ProtocolError(
        f"{call.method} {url} was redirected to {target}, which loses its body. "
        "Give base_url as the server finally has it (https?)."
    )


def check_redirect(method: str, url: str, target: str) -> None:
    """Refuse a redirect that would give what a call brings (a goal, a file, a password) to another server.

    Raises:
        ValueError: `target` is no URL.
        ProtocolError: It is another server's, and the call is more than a question.
    """
    if method not in QUESTIONS and _origin(target) != _origin(url):
        raise ProtocolError(
            f"{method} {url} was redirected to another server, {target}, which does not get it. "
            "Give base_url as the server finally has it (https?)."
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def as_value(failure: BeRayException, *, cause: BaseException) -> NetworkError:
    """A flow decides about a network failure; any other error is for the caller at once."""
    if not isinstance(failure, NetworkError):
        raise failure from cause
    failure.__cause__ = cause  # what `raise ... from` would do
    return failure
