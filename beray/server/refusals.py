"""What a route may be refused with, as /openapi.json tells it: by the codes that its services raise."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from beray.server.errors import STATUS_OF

OPEN: Final[dict[str, Any]] = {"security": []}
"""`openapi_extra` of a route that needs no login; every other one does."""

ANYWHERE: Final = ("bad_request", "validation_error", "body_too_large", "internal_error")
"""What the edge of the server refuses before any route is asked, and a fault of ours."""

READING: Final = (*ANYWHERE, "database_unavailable")
WRITING: Final = (*READING, "disk_full", "disk_unavailable", "outcome_unknown")
SIGNED_IN: Final = ("not_authenticated", "origin_mismatch")
LOGGED_IN: Final = (*SIGNED_IN, "login_needed")
"""Of a route that takes no API token."""


class ErrorItemBody(BaseModel):
    """One field that is wrong, and why."""

    loc: list[str | int]
    msg: str
    type: str


class ProblemBody(BaseModel):
    """Every error's body; `errors` on a 422 only."""

    detail: str
    code: str
    status: int
    title: str
    request_id: str
    errors: list[ErrorItemBody] | None = None


def refused_with(*codes: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that refuses with these codes, one entry per HTTP status."""
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS_OF[code], []).append(f"`{code}`")
    return {status: _response(status, ", ".join(names)) for status, names in sorted(by_status.items())}


PROBLEM: Final = {"$ref": "#/components/schemas/ProblemBody"}
"""By name, not as the response's `model`, of which the framework would make a serializer for each status of each route:
300 of them, a tenth of the start. `api_document.py` adds what it names."""


def problem_schemas() -> dict[str, Any]:
    """What `PROBLEM` names, and what that names in turn."""
    whole = ProblemBody.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    return {**whole.pop("$defs"), "ProblemBody": whole}


def _response(status: int, description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": PROBLEM}}
    response: dict[str, Any] = {"description": description, "content": content}
    if status in HEADERS:
        response["headers"] = HEADERS[status]
    return response


_RETRY_AFTER: Final = {
    "Retry-After": {"required": True, "description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
}
HEADERS: Final[Mapping[int, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
"""What an error of this status always carries."""
