"""What can go wrong with a model: which faults are worth another try, and what people are told about the others."""

import random
import re
from typing import Final
from urllib.parse import urlsplit

from pydantic_ai import exceptions

from beray.protocol.types import TaskError
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.unreachable import why_unreachable
from beray.server.messages import Language, text

MOST_TRIES: Final = 5
MOST_WAIT_SECONDS: Final = 60.0
FIRST_WAIT_SECONDS: Final = 0.5

_TRANSIENT: Final = (
    exceptions.ModelRateLimitError,
    exceptions.ModelUnavailableError,
    exceptions.ModelServerError,
    exceptions.ModelConnectionError,
    exceptions.ModelRequestTimeout,
)
# Themselves, not what they are the base of: an answer that holds nothing or no JSON, as proxies in trouble give.
_UNREADABLE: Final = (exceptions.ModelAPIError, exceptions.UnexpectedModelBehavior)
_TRANSIENT_STATUSES: Final = frozenset({408, 425})  # the library gives these no class of their own
_CODES: Final[tuple[tuple[type[Exception], str, str], ...]] = (  # the first that fits: code, and the hint's key
    (exceptions.ModelAuthenticationError, "model_auth", "model_auth_hint"),
    (exceptions.ModelQuotaExceededError, "model_quota", "model_quota_hint"),
    (exceptions.ModelNotFoundError, "model_not_found", "model_not_found_hint"),
    (exceptions.ModelContextWindowExceededError, "context_exceeded", "context_exceeded_hint"),
    (exceptions.ModelRateLimitError, "model_rate_limited", "model_rate_limited_hint"),
    (exceptions.ModelServerError, "model_unavailable", "model_unavailable_hint"),
    (exceptions.ModelUnavailableError, "model_unavailable", "model_unavailable_hint"),
    (exceptions.ModelConnectionError, "model_unreachable", "model_unreachable_hint"),
    (exceptions.ModelRequestTimeout, "model_unreachable", "model_unreachable_hint"),
    (exceptions.ContentFilterError, "model_refused", "model_refused_hint"),
    (exceptions.OutputTokenLimitExceeded, "model_output_cut", "model_output_cut_hint"),
    (Exception, "model_error", "model_error_hint"),
)
_CHECK_HINTS: Final = {  # where there is no task to make smaller, or to submit again
    "model_rate_limited_hint": "model_rate_limited_check",
    "model_unavailable_hint": "model_unavailable_check",
    "model_unreachable_hint": "model_unreachable_check",
    "model_refused_hint": "model_error_hint",
    "model_output_cut_hint": "model_error_hint",
    "context_exceeded_hint": "model_error_hint",
}
MOST_REASON_CHARACTERS: Final = 500
_OF_ONE_MODEL: Final = frozenset(
    {"model_auth", "model_quota", "model_not_found", "model_rate_limited", "model_unavailable", "model_unreachable"}
)
"""What is wrong with a provider rather than with what it was asked: another model may not share it."""

_OF_REQUEST: Final = frozenset({"context_exceeded", "model_refused", "model_output_cut"})


_PERHAPS_ANSWERED: Final = frozenset({504, 524})
"""Statuses by which something on the way says that it has waited too long: behind it the model may have worked."""


def was_refused(error: Exception) -> bool:
    """Whether no model saw the request, or none that is paid for: its server refused it, or was not reached."""
    if isinstance(error, exceptions.ModelConnectionError):
        return error.phase in {"pool", "connect"}
    is_answer = isinstance(error, exceptions.ModelHTTPError) and not error.in_stream
    return is_answer and getattr(error, "status_code", None) not in _PERHAPS_ANSWERED


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    return isinstance(error, _TRANSIENT) or type(error) in _UNREADABLE or _is_untimely(error)


def _is_untimely(error: Exception) -> bool:
    """Whether the server took the request for too late, or too early."""
    return isinstance(error, exceptions.ModelHTTPError) and error.status_code in _TRANSIENT_STATUSES


def may_fall_back(error: Exception) -> bool:
    """Whether another model may succeed where this one has failed for good."""
    return code_of(error) in _OF_ONE_MODEL or type(error) in _UNREADABLE


def is_of_request(error: Exception) -> bool:
    """Whether the provider works, but won't answer this request: another one it may answer."""
    return code_of(error) in _OF_REQUEST or is_rejected(error)


def is_rejected(error: Exception) -> bool:
    """Whether the provider has refused the request for something in it, without a better-known reason."""
    if code_of(error) != "model_error":
        return False
    is_too_large = isinstance(error, exceptions.ModelHTTPError) and error.status_code == 413
    return is_too_large or isinstance(error, exceptions.ModelRequestRejectedError)


def wait_seconds(error: Exception, tries: int) -> float:
    """How long to wait after try number `tries`: what the server asked for, else exponential with jitter."""
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, int | float) and asked >= 0:
        return min(float(asked), MOST_WAIT_SECONDS)
    backoff: float = min(FIRST_WAIT_SECONDS * 2 ** (tries - 1), MOST_WAIT_SECONDS)
    return backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def code_of(error: Exception) -> str:
    """The error code people and programs see."""
    return _keys(error)[0]


def _keys(error: Exception) -> tuple[str, str]:
    if _is_untimely(error):
        return "model_unavailable", "model_unavailable_hint"
    return next((code, hint) for kind, code, hint in _CODES if isinstance(error, kind))


def describe(error: Exception, model: ModelChoice, language: Language, *, is_check: bool = False) -> TaskError:
    """What the task's `error` says about a fault of its model; what is said to `is_check` speaks of no task."""
    code, hint = _keys(error)
    sentence, fields = code, {}
    if code == "model_auth" and model.api_key is None:
        sentence, hint = "model_key_missing", "model_key_missing_remedy"
        fields = {"keys": " / ".join(model.key_names or ("BERAY_MODEL_API_KEY",))}
    elif is_check:
        hint = _CHECK_HINTS.get(hint, hint)
    reason = _without_address(redact(_reason(error, language), model.api_key), model)
    return {
        "code": code,
        "message": text(sentence, language, model=model.name, reason=reason),
        "hint": text(hint, language, **fields),
        "retryable": is_transient(error),
    }


def _reason(error: Exception, language: Language) -> str:
    if isinstance(error, exceptions.ModelConnectionError):
        why = why_unreachable(error, language)
        if why is not None:
            return why
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(message, str):
            return message[:MOST_REASON_CHARACTERS]
    return str(error)[:MOST_REASON_CHARACTERS]


def _without_address(reason: str, model: ModelChoice) -> str:
    """`reason` without where a server of the operator's own is: proxies like to say whom they could not reach."""
    if not model.is_own_url or model.base_url is None:
        return reason
    place = urlsplit(model.base_url).netloc
    reason = reason.replace(f"//{place}", "//***")
    return reason.replace(place, "***") if ":" in place else reason  # else it may be a mere word, such as `ollama`


_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|br|key)[-_][A-Za-z0-9*._-]{6,}|\bBearer\s+\S+|[\w-]*\*{3,}[\w-]*")


def redact(reason: str, api_key: str | None) -> str:
    """`reason` without the key or what looks like a part of one; providers like to echo them."""
    if api_key:
        reason = reason.replace(api_key, "***")
        if len(api_key) >= 12:
            reason = reason.replace(api_key[:8], "***").replace(api_key[-6:], "***")
    return _SECRET.sub("***", reason)
