"""What requests and urllib3 raise, as the SDK's own exceptions."""

import http.client
from collections.abc import Iterator

import requests
import urllib3

from beray.drivers.alike import IS_IT_RUNNING, no_connection
from beray.exceptions import BeRayException, ConnectionFailed, ProtocolError, RequestTimeout, TLSError

_NO_PROTOCOL = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.DecodeError,
)


_CUT = (
    http.client.HTTPException,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    urllib3.exceptions.ReadTimeoutError,
    urllib3.exceptions.ResponseError,
)
"""urllib3 gives up by MaxRetryError before it has sent; but later too with a proxy, or where a session of the caller's
repeats by itself."""


def network_error(error: Exception, *, method: str, url: str, timeout_seconds: float) -> BeRayException:
    """What requests or urllib3 raised, as the SDK's own exception.

    Args:
        error: What was caught.
        method: The request's method.
        url: The request's URL.
        timeout_seconds: The read timeout, for the message.
    """
    causes = list(_causes(error))
    what = f"{method} {url}"
    reason = _reason(causes)
    is_connecting = _has(causes, urllib3.exceptions.MaxRetryError) and not _has(causes, *_CUT)
    if is_connecting and _has(causes, urllib3.exceptions.SSLError):
        return TLSError(f"{what}: no secure connection: {reason}", method=method, url=url, was_sent=False)
    if _has(causes, requests.ConnectTimeout):
        message = f"{what}: the server could not be reached in time."
        return RequestTimeout(message, method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if is_connecting:
        return ConnectionFailed(no_connection(what, reason), method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if _has(causes, requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return RequestTimeout(f"{what}: nothing came for {timeout_seconds:g} s.", method=method, url=url)
    if isinstance(error, _NO_PROTOCOL):
        return ProtocolError(f"{what}: {reason}")
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        return ConnectionFailed(f"{what}: the connection was cut: {reason}", method=method, url=url)
    return TLSError(f"{what}: {error}", method=method, url=url, was_sent=False)  # an OSError: a certificate's file


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it wraps: requests and urllib3 put the wrapped one in `reason` or among the arguments."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (getattr(one, "reason", None), *one.args, one.__cause__, one.__context__)
        waiting.extend(cause for cause in inner if isinstance(cause, BaseException))


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _reason(causes: list[BaseException]) -> str:
    """The innermost words, such as `Connection refused`."""
    for cause in reversed(causes):
        words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        if words:
            return words
    return type(causes[0]).__name__
