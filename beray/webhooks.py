"""Receive webhooks: is it really the server that called, and is it now?

    event = beray.webhooks.verify(request.headers, request.body, secret)

Needs the standard library alone. The secret is shown by `set_webhook`, when it is made and whenever it is changed.
"""

import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from beray.exceptions import WebhookRefused
from beray.protocol.types import WebhookEvent
from beray.protocol.webhook_signature import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    key_of,
    signature,
    signed_headers,
)

__all__ = ["TOLERANCE_SECONDS", "sign", "verify"]

TOLERANCE_SECONDS: Final = 300.0
"""How far a message's time may be from now: older ones may have been recorded, and sent again by somebody else."""

_SECONDS: Final = re.compile(r"[0-9]{1,12}")
# What HTTP allows around a value. An id with more taken off it would be another id to who keeps those that came.
_AROUND: Final = " \t"

Text = str | bytes
Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[Text, Text]]


def verify(
    headers: Headers,
    body: Text,
    secret: str | Sequence[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> WebhookEvent:
    """The event inside a webhook, once it is proven that it comes from the server and is fresh.

    A message may come more than once: keep the `webhook-id` of those you have dealt with, and answer 2xx to one that
    you know.

    Args:
        headers: Of the request: any mapping, or pairs; names in any case.
        body: The request's body as it came. Parsed and written again it would not be what was signed.
        secret: What the server has shown, `whsec_...`; several while you change from one to the next.
        tolerance_seconds: How far the message's time may be from now.
        now: Seconds since the epoch; default: this machine's clock.

    Raises:
        WebhookRefused: Answer it with 400, and believe nothing of it. Its `reason` says why.
        ValueError: A secret is none.
    """
    keys = _keys_of(secret)
    if not keys:
        raise ValueError("a webhook can't be verified without a secret")
    content = _bytes_of(body)
    found = _headers_of(headers)
    timestamp = _fresh(
        found[TIMESTAMP_HEADER], tolerance_seconds, datetime.now(UTC).timestamp() if now is None else now
    )
    _check_signature(found, content, keys, timestamp)
    return _event_of(content)


def sign(
    body: Text, secret: str | Sequence[str], *, message_id: str = "msg_test", now: float | None = None
) -> dict[str, str]:
    """The headers that the server would send with a body, for tests of your receiver.

    Raises:
        ValueError: A secret is none, or the id has a full stop in it.
    """
    seconds = datetime.now(UTC).timestamp() if now is None else now
    keys = _keys_of(secret)
    return signed_headers(keys, message_id=message_id, timestamp=int(seconds), body=_bytes_of(body))


def _keys_of(secret: Text | Sequence[str]) -> list[bytes]:
    if isinstance(secret, bytes):
        raise TypeError("secret must be text, whsec_..., or several of it; got bytes: decode them")
    return [key_of(each) for each in ([secret] if isinstance(secret, str) else secret)]


def _bytes_of(body: Text) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:
            raise WebhookRefused("its body is no valid text", reason="body") from None
    raise TypeError(f"body must be the request's raw bytes or text, before it is parsed; got {type(body).__name__}")


def _headers_of(headers: Headers) -> dict[str, str]:
    """The three headers; each must be there once."""
    pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    for raw_name, raw_value in cast("Iterable[tuple[Text, Text]]", pairs):
        name = _text_of(raw_name).lower()
        if name not in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER):
            continue
        if name in found:
            raise WebhookRefused(f"the header {name} is there twice", reason="headers")
        found[name] = _text_of(raw_value).strip(_AROUND)
    for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER):
        if not found.get(name):
            raise WebhookRefused(f"the header {name} is missing", reason="headers")
    return found


def _text_of(value: Text) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _fresh(text: str, tolerance_seconds: float, now: float) -> int:
    if not _SECONDS.fullmatch(text):
        raise WebhookRefused("its webhook-timestamp is no number of seconds", reason="timestamp")
    timestamp = int(text)
    age = now - timestamp
    if abs(age) > tolerance_seconds:
        told = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s ahead of this machine's clock"
        raise WebhookRefused(f"it is {told}; {tolerance_seconds:g} s are allowed", reason="timestamp")
    return timestamp


def _check_signature(found: Mapping[str, str], body: bytes, keys: Sequence[bytes], timestamp: int) -> None:
    try:
        expected = [
            signature(key, message_id=found[ID_HEADER], timestamp=timestamp, body=body).encode() for key in keys
        ]
    except ValueError:
        raise WebhookRefused("its webhook-id is malformed", reason="headers") from None
    given = [each.encode(errors="surrogatepass") for each in found[SIGNATURE_HEADER].split()]  # WSGI makes such
    # Each with each, and to the end: how long it takes says nothing of how much of one is right.
    if not any([hmac.compare_digest(one, other) for one in expected for other in given]):  # noqa: C419 - see above
        raise WebhookRefused("none of its signatures is by this secret", reason="signature")


def _event_of(body: bytes) -> WebhookEvent:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str) or "data" not in event:
        raise WebhookRefused("its body is no event", reason="body")
    return cast(WebhookEvent, event)
