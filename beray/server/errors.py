"""Errors of the domain, their HTTP status, and the one JSON error shape (WIRE.md, "Common").

Services raise `Refused` with a code; the sentences stand in `messages.py`. Only this file knows HTTP status codes.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from beray.protocol.types import ErrorItem, Problem
from beray.server.messages import Language, text

SHOWN_CHARACTERS: Final = 120


class Refused(Exception):
    """Something asked for can't be done; `code` names why, `params` fill the sentence.

    Args:
        code: A key of `STATUS_OF` and of the catalogue in `messages.py`.
        retry_after_seconds: When it may be tried again; sent as `Retry-After` (always on 429 and 503).
        errors: The fields that are wrong, on a 422.
        params: What the sentence names.
    """

    def __init__(
        self,
        code: str,
        /,
        *,
        retry_after_seconds: int | None = None,
        errors: Sequence[ErrorItem] = (),
        **params: object,
    ) -> None:
        super().__init__(text(code, "en", **params))
        self.code = code
        self.params = params
        self.retry_after_seconds = retry_after_seconds
        self.errors = tuple(errors)

    @property
    def status_code(self) -> int:
        """The HTTP status this becomes."""
        return STATUS_OF[self.code]

    def detail(self, language: Language) -> str:
        """The sentence for people."""
        return text(self.code, language, **self.params)


def shown(said: str) -> str:
    """What a client has sent, such as a name or a path, as it may stand in a sentence: short, and printable."""
    cut = said if len(said) <= SHOWN_CHARACTERS else said[:SHOWN_CHARACTERS] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


STATUS_OF: Final[dict[str, int]] = {
    # requests
    "bad_request": 400,
    "validation_error": 422,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "rate_limited": 429,
    "internal_error": 500,
    "starting": 503,
    "idempotency_mismatch": 409,
    # accounts
    "not_authenticated": 401,
    "invalid_credentials": 401,
    "login_needed": 403,
    "origin_mismatch": 403,
    "email_already_registered": 409,
    "invalid_verification_code": 400,
    "invalid_email": 422,
    "invalid_password": 422,
    "unsupported_grant_type": 400,
    "mail_not_sent": 503,
    "api_token_not_found": 404,
    "too_many_api_tokens": 409,
    "session_not_found": 404,
    "wrong_password": 403,
    "account_without_password": 409,
    "webhook_url_invalid": 422,
    "user_not_found": 404,
    "last_admin": 409,
    "admin_needs_password": 409,
    # tasks
    "task_not_found": 404,
    "task_already_ended": 409,
    "task_already_started": 409,
    "task_being_stopped": 409,
    "question_closed": 409,
    "message_empty": 422,
    "message_too_long": 422,
    "too_many_messages": 429,
    "conversation_full": 409,
    "rules_read_no_messages": 409,
    "task_being_deleted": 503,
    "goal_empty": 422,
    "goal_too_long": 422,
    "unknown_tools": 422,
    "cost_limit_unknown": 422,
    "unknown_model": 422,
    "day_limit_reached": 429,
    "too_many_streams": 429,
    # files
    "output_not_found": 404,
    "file_not_found": 404,
    "invalid_path": 422,
    "path_is_directory": 409,
    "not_a_file": 409,
    "not_a_directory": 409,
    "file_not_permitted": 409,
    "file_busy": 409,
    "too_many_files": 422,
    "upload_too_large": 413,
    "storage_full": 413,
    "upload_cut": 400,
    "precondition_failed": 412,
    "range_not_satisfiable": 416,
    "disk_full": 507,
    "disk_unavailable": 503,
    # storage
    "database_unavailable": 503,
    "outcome_unknown": 504,
}

STORAGE_FAULTS: Final = frozenset({"disk_full", "disk_unavailable", "database_unavailable"})
"""What a write is refused with while nothing can be stored; it may be tried again."""


def wrong_field(name: str, code: str, /, **params: object) -> ErrorItem:
    """The item of `errors` that says which field of the body was refused with `code`."""
    return {"loc": ["body", name], "msg": text(code, **params), "type": code}


def problem(refused: Refused, language: Language, request_id: str) -> Problem:
    """The error body for `refused`."""
    body: Problem = {
        "detail": refused.detail(language),
        "code": refused.code,
        "status": refused.status_code,
        "title": HTTPStatus(refused.status_code).phrase,
        "request_id": request_id,
    }
    if refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        body["errors"] = list(refused.errors)
    return body
