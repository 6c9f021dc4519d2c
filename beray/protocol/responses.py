"""An answer's status, headers and bytes become a value, or the right exception."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    ProtocolError,
    UnprocessableEntityError,
)

try:  # several times faster; the server's extra brings it, the SDK alone does without
    from orjson import loads as parse_json
except ImportError:
    from json import loads as parse_json  # type: ignore[assignment]  # called with one bytes or str only

__all__ = [
    "Answer",
    "error_of",
    "is_task",
    "name_of",
    "no_task",
    "parse_json",
    "retry_after_seconds",
    "value_of",
]

_FOREVER_SECONDS: Final = 1e9
_MOST_NAME_CHARACTERS: Final = 200
_LEAST_SECRET: Final = 8  # characters; shorter ones are a test's, and parts of other words

_ERROR_OF_STATUS: Final[Mapping[int, type[APIError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
}


class Answer(NamedTuple):
    """What came back. A tuple, since one is made for each call: a frozen dataclass takes three times as long.

    Attributes:
        status: HTTP status.
        headers: Looked up without regard to case.
        body: The whole body; empty where it is still to be read from `response`.
        method: The request's method.
        url: The request's URL.
        response: The HTTP library's own object.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = ""
    url: str = ""
    response: Any = None

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300


def value_of(answer: Answer) -> Any:
    """The JSON value of the body.

    Raises:
        ProtocolError: The body is not JSON.
    """
    try:
        return parse_json(answer.body)
    except (ValueError, RecursionError):
        kind = answer.headers.get("Content-Type", "no Content-Type")
        message = (
            f"{answer.method} {answer.url} answered {answer.status} with {kind}, not with JSON. "
            "Does base_url point at a BeRay server?"
        )
        raise ProtocolError(message) from None


def error_of(answer: Answer, *, secret: str | None = None) -> APIError:
    """The exception for an answer that is no success.

    Args:
        answer: It.
        secret: The token, which is left out: some proxies show a request's headers on their pages.
    """
    body = _without(secret, answer.body)
    content = _json_object(body)
    detail = content["detail"] if "detail" in content else body.decode("utf-8", "replace")
    errors = content.get("errors", detail)
    code = content.get("code")
    request_id = name_of(content.get("request_id")) or name_of(answer.headers.get("X-Request-ID"))
    kind = _ERROR_OF_STATUS.get(answer.status, APIError)
    return kind(
        answer.status,
        detail,
        code=name_of(code),
        request_id=request_id if request_id != secret else None,
        method=answer.method,
        url=answer.url,
        errors=errors if isinstance(errors, list) and answer.status == HTTPStatus.UNPROCESSABLE_ENTITY else (),
        retry_after=retry_after_seconds(answer.headers),
        response=answer.response,
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for, as seconds from the answer on; None if it is absent or no sense can be made of it.

    A date is compared with the answer's own `Date`, so that a client's wrong clock does no harm.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _FOREVER_SECONDS)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError, OverflowError):  # TypeError: one of the two names no time zone
        return None
    return max(0.0, wait.total_seconds())


def name_of(value: object) -> str | None:
    """A name that the server gives, such as a request's; None for what is no such thing, and would harm a log."""
    if not isinstance(value, str) or len(value) > _MOST_NAME_CHARACTERS or not value.isprintable():
        return None
    return value


def no_task(answer: Answer) -> ProtocolError:
    """What is said of an answer that should be a task."""
    return ProtocolError(f"{answer.method} {answer.url} answered with no task. Does base_url point at a BeRay server?")


def is_task(value: object) -> bool:
    """Whether it is one, as far as its id and its state."""
    return isinstance(value, dict) and type(value.get("id")) is int and isinstance(value.get("status"), str)


def _without(secret: str | None, body: bytes) -> bytes:
    return body if secret is None or len(secret) < _LEAST_SECRET else body.replace(secret.encode(), b"***")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = parse_json(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
