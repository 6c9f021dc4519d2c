"""Why a model's server could not be reached: the library says "Connection error.", its causes say what happened."""

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from beray.server.messages import Language, text

MOST_CAUSES: Final = 30


def why_unreachable(error: BaseException, language: Language) -> str | None:
    """The reason in a few words for people, which name no address; None where no cause tells it."""
    for cause in _causes(error):
        match cause:
            case ConnectionRefusedError():
                return text("reason_refused", language)
            case socket.gaierror():
                return text("reason_unknown_host", language, reason=cause.strerror or str(cause))
            case ssl.SSLCertVerificationError():
                reason = cause.verify_message.partition(", certificate is not valid for")[0]
                return text("reason_certificate", language, reason=reason)
            case ssl.SSLError():
                reason = getattr(cause, "reason", None) or str(cause)  # only those of OpenSSL have one
                return text("reason_tls", language, reason=reason.replace("_", " ").lower())
            case TimeoutError():
                return text("reason_timed_out", language)
            case ConnectionResetError():
                return text("reason_reset", language)
            case OSError() if cause.errno:
                return os.strerror(cause.errno)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came from; of a group, which several addresses of a host give, all members."""
    waiting: list[BaseException | None] = [error]
    for _ in range(MOST_CAUSES):
        if not waiting:
            return
        cause = waiting.pop(0)
        if cause is not None:
            yield cause
            waiting.append(cause.__cause__ or cause.__context__)  # libraries hide some (`from None`) from tracebacks
            waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
