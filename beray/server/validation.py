"""Requests that don't fit their model, told in the one error shape and in the reader's language."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError

from beray.protocol.types import ErrorItem
from beray.server.errors import Refused, shown
from beray.server.messages import MESSAGES, Language, text

SHOWN = 20  # errors listed at most: a body can hold thousands


def validation_refusal(error: RequestValidationError, language: Language) -> Refused:
    """A 422 that lists each wrong field; its sentence names the first."""
    items = [_item(entry, language) for entry in error.errors()[:SHOWN]]
    first = items[0]
    if first["type"] == "json_invalid":  # its place is a number of bytes, which would read like a field
        return malformed_body(language)
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return Refused("validation_error", reason=f"{place}: {first['msg']}", errors=items)


def malformed_body(language: Language) -> Refused:
    """A 422 for a body that is no JSON or form at all."""
    message = text("invalid.json_invalid", language)
    item: ErrorItem = {"loc": ["body"], "msg": message, "type": "json_invalid"}
    return Refused("validation_error", reason=message, errors=[item])


def _item(entry: Mapping[str, Any], language: Language) -> ErrorItem:
    kind = str(entry["type"])
    place = [shown(part) if isinstance(part, str) else part for part in entry["loc"]]  # a key may be the client's own
    return {"loc": place, "msg": _message(entry, kind, language), "type": kind}


def _message(entry: Mapping[str, Any], kind: str, language: Language) -> str:
    key = f"invalid.{kind}"
    if key in MESSAGES:
        return text(key, language, **entry.get("ctx", {}))
    return str(entry["msg"])
