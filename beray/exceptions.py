"""What the SDK raises on purpose.

    BeRayException
    |- APIError                        the server refused the call
    |  |- AuthenticationError          401, 403
    |  |- NotFoundError                404
    |  |- ConflictError                409
    |  `- UnprocessableEntityError     422
    |- NetworkError                    no whole answer came
    |  |- ConnectionFailed             refused, reset, cut, name not found
    |  |  `- TLSError                  the secure connection could not be made
    |  `- RequestTimeout               the answer did not come in time
    |- ProtocolError                   an answer that the wire contract doesn't know
    |  `- EventTooLarge                an event of a stream above the client's bound
    |- WaitTimeout                     the task has not ended in the time given; it goes on
    |- TaskFailed                      what `TaskResult.raise_if_failed` raises
    |- NotConfigured                   `from_env` found no server, or nobody logged in there
    |- DownloadDamaged                 what came is not what the server has
    |- UploadDamaged                   what the server has is not what was to be sent
    |- FolderRefused                   a folder that could do harm, or is too large, and was not transferred
    |- ArchiveRefused                  a ZIP that could do harm, or is damaged, and was not unpacked
    `- WebhookRefused                  a request that is not proven to be a webhook of the server's

`str(error)` is always one line, and no error tells a token. `hint` says what to do next, where that is known. Errors
can be pickled; `response` stays behind, since it holds the request's token.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "...")
_MAX_LINE = 400  # characters of `str(error)`; a proxy's HTML page would fill the terminal
_MAX_DEPTH = 8  # of lists in a detail

# What a terminal obeys instead of showing it, what turns the direction of a line, and what no encoding can print.
_UNREADABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class BeRayException(Exception):
    """Base of everything the SDK raises on purpose.

    Attributes:
        hint: What to do next, as a sentence; None where nothing helps in general.
    """

    hint: str | None = None


class APIError(BeRayException):
    """The server answered that it won't, or can't.

    Attributes:
        status_code: The HTTP status.
        error_detail: The body's `detail` unchanged (a sentence; other servers may send a list), else the body's text.
        code: The stable name of what happened, such as `task_not_found`; None where the server gives none.
        request_id: What to quote to the server's operator; None where the server gives none.
        method: The request's HTTP method.
        url: The request's URL.
        errors: The wrong fields of a 422, each `{"loc", "msg", "type"}`.
        retry_after: Seconds after which the server wants to be asked again, or None.
        hint: What to do next, as a sentence; None where nothing helps in general.
        response: The HTTP library's response (`requests.Response` for `BeRayClient`), or None.
    """

    def __init__(
        self,
        status_code: int,
        error_detail: Any = None,
        *,
        code: str | None = None,
        request_id: str | None = None,
        method: str | None = None,
        url: str | None = None,
        errors: Sequence[Any] = (),
        retry_after: float | None = None,
        response: Any = None,
    ) -> None:
        super().__init__(status_code, error_detail)
        self.status_code = status_code
        self.error_detail = error_detail
        self.code = code
        self.request_id = request_id
        self.method = method
        self.url = url
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.hint = _hint(status_code, retry_after)
        self.response = response

    def __str__(self) -> str:
        name = f"{self.status_code} {self.code}" if self.code else str(self.status_code)
        where = f"{self.method} {self.url}" if self.url else ""
        quoted = f"request {self.request_id}" if self.request_id else ""
        context = ", ".join(part for part in (where, quoted) if part)
        line = f"{_one_line(name)}: {_one_line(_sentence(self.error_detail)) or _phrase(self.status_code)}"
        if self.hint and not self.code:  # a BeRay server's own sentence says it already
            line = f"{line}{'' if line.endswith(_SENTENCE_ENDS) else '.'} {self.hint}"
        return f"{line} ({_one_line(context)})" if context else line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "response": None}


class AuthenticationError(APIError):
    """401: not logged in, or the token is no longer good. 403: not allowed."""


class NotFoundError(APIError):
    """404: no such task or file, or it is someone else's."""


class ConflictError(APIError):
    """409: the call doesn't fit the present state, such as an address that is registered already."""


class UnprocessableEntityError(APIError):
    """422: a parameter is wrong; `errors` names the fields."""


class NetworkError(BeRayException):
    """No whole answer came.

    Attributes:
        method: The request's HTTP method.
        url: The request's URL.
        was_sent: Whether the request may have reached the server, so that it may have been carried out.
        hint: What to do next, as a sentence; part of `str(error)`.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        url: str | None = None,
        was_sent: bool = True,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.method = method
        self.url = url
        self.was_sent = was_sent
        self.hint = hint

    def __str__(self) -> str:
        return _one_line(f"{self.args[0]} {self.hint or ''}")


class ConnectionFailed(NetworkError):
    """The server could not be reached, or the connection was cut before the answer was whole."""


class TLSError(ConnectionFailed):
    """The secure connection could not be made: mostly a certificate that is not accepted. Never retried."""


class RequestTimeout(NetworkError):
    """The server could not be reached in time, or was silent for too long."""


class ProtocolError(BeRayException):
    """The server answered something that the wire contract doesn't know; often `base_url` is another service's."""

    def __str__(self) -> str:
        return _one_line(super().__str__())


class EventTooLarge(ProtocolError):
    """An event of a stream is larger than the client's bound."""


class WaitTimeout(BeRayException):
    """The task has not ended in the time given. It goes on: nothing is stopped by waiting no longer.

    Attributes:
        task_id: The task.
    """

    def __init__(self, task_id: int) -> None:
        super().__init__(task_id)
        self.task_id = task_id
        self.hint = f"Wait on with wait_for_task({task_id}), or end it with stop_task({task_id})."

    def __str__(self) -> str:
        return f"Task {self.task_id} has not ended in the time given; it goes on. {self.hint}"


class TaskFailed(BeRayException):
    """The task has ended `failed` or `stopped`.

    Attributes:
        task_id: The task.
        status: How it ended.
        code: The stable name of what went wrong; None where it was stopped.
        detail: The server's sentence about it, or None.
        hint: The server's advice, or None.
        is_retryable: Whether another run may do better, as far as the server knows.
    """

    def __init__(
        self,
        task_id: int,
        status: str,
        *,
        code: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
        is_retryable: bool = False,
    ) -> None:
        super().__init__(task_id, status)
        self.task_id = task_id
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.is_retryable = is_retryable

    def __str__(self) -> str:
        name = f"Task {self.task_id} {self.status}" + (f" ({self.code})" if self.code else "")
        return _one_line(": ".join(part for part in (name, self.detail) if part) + f" {self.hint or ''}")


class NotConfigured(BeRayException):
    """`from_env` found no server to talk to, or nobody logged in there."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.hint = hint

    def __str__(self) -> str:
        return _one_line(f"{self.args[0]} {self.hint}")


class DownloadDamaged(BeRayException):
    """What came is not what the server has, twice in a row; nothing of it was kept."""

    def __str__(self) -> str:
        return _one_line(super().__str__())


class UploadDamaged(BeRayException):
    """What was to be sent could not be read as a whole, or the server has other bytes than were sent."""

    def __str__(self) -> str:
        return _one_line(super().__str__())


class FolderRefused(BeRayException):
    """`upload_dir` or `download_dir` transferred nothing: a name or a link could do harm, or there is too much.

    Attributes:
        reason: `name`, `duplicate` (one place on some systems), `link`, `exists` (something else is in the way) or
            `too_many_files`.
        path: What it is about, relative to the folder; None where it is about the whole.
    """

    def __init__(self, message: str, *, reason: str = "name", path: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return _one_line(f"The folder was not transferred: {self.args[0]}")


class ArchiveRefused(BeRayException):
    """`extract_zip_safely` unpacked nothing: something in the archive could do harm, or is in the way.

    Attributes:
        reason: `name`, `link`, `special` (no plain file), `encrypted`, `method` (of packing), `duplicate`, `overlap`,
            `too_many_entries`, `too_large`, `ratio`, `exists` (in the target folder) or `damaged`.
        entry: Name of the entry it is about, as the archive has it; None where it is about the whole.
    """

    def __init__(self, message: str, *, reason: str = "damaged", entry: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.entry = entry

    def __str__(self) -> str:
        return _one_line(f"The archive was not unpacked: {self.args[0]}")


class WebhookRefused(BeRayException):
    """`webhooks.verify` did not believe a request. Answer it with 400.

    Attributes:
        reason: `signature`, `timestamp` (too far from now, or none), `headers` (missing, malformed) or `body`.
    """

    def __init__(self, message: str, *, reason: str = "signature") -> None:
        super().__init__(message)
        self.reason = reason

    def __str__(self) -> str:
        return _one_line(f"The webhook was not accepted: {self.args[0]}")


def _sentence(detail: Any, depth: int = 0) -> str:
    """`detail` for people: a list of field errors becomes `body.email: msg; ...`."""
    if detail is None:
        return ""
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(detail, list):
        return "; ".join(_sentence(item, depth + 1) for item in detail[:_MAX_LINE])
    if isinstance(detail, dict) and "msg" in detail:
        loc = detail.get("loc")
        where = ".".join(str(part) for part in loc) if isinstance(loc, list | tuple) else ""
        return f"{where}: {detail['msg']}" if where else str(detail["msg"])
    try:
        return str(detail)
    except RecursionError:
        return "..."


_HINTS: Final = {
    401: "Log in (again) with login(), or give a good token: the client's `token`, or BERAY_TOKEN.",
    403: "This token may not do that: if it is an API token, log in with login(); else take another account.",
    404: "See whether the id and the path are right: list_tasks() and list_files_tree() show what there is.",
    413: "Send less at once; get_info() tells the server's limits.",
    429: "Wait, then try again.",
    500: "The server's log says more; give its operator the request id.",
    502: "What stands before the server can't reach it; try again later.",
    503: "The server is busy or starting; try again later.",
    504: "Look whether it has been done before you repeat it: list_tasks().",
}


def _hint(status_code: int, retry_after: float | None) -> str | None:
    if status_code in (429, 503) and retry_after is not None:
        return f"Try again in {retry_after:g} s."
    return _HINTS.get(status_code)


def _phrase(status_code: int) -> str:
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return "no further detail"


def _one_line(text: str) -> str:
    """`text` without what a terminal would obey: most of it is what a server said, or whoever stands between."""
    line = " ".join(text[: 4 * _MAX_LINE].split())
    cut = line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}..."
    return _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", cut)
