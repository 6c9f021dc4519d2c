"""What a program can see of each request: hooks, and the log that `BERAY_LOG` switches on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """A request that is about to be sent.

    Attributes:
        method: HTTP method.
        url: Where to. No secret is in it.
        attempt: 1 for the first, rising with each repetition of the call.
    """

    method: str
    url: str
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseInfo:
    """What came of it.

    Attributes:
        request: The request.
        status_code: HTTP status; None where no answer came.
        request_id: What the server calls the request, for its operator.
        elapsed_seconds: From sending to the answer; to its headers where the body is streamed.
        error: What went wrong, where no answer came.
    """

    request: RequestInfo
    status_code: int | None
    request_id: str | None
    elapsed_seconds: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told of each request; may raise, which ends the call."""

    on_request: Sequence[Callable[[RequestInfo], object]]
    on_response: Sequence[Callable[[ResponseInfo], object]]
