"""Signatures of webhooks, by the Standard Webhooks specification 1.0.0 (the symmetric scheme, `v1`).

What is signed is `id.timestamp.body`, with HMAC-SHA256. A message carries one signature for each secret that is good
at the time, so that a receiver can change from one to the next whenever it likes.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from typing import Final

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with is none
_UNFIT: Final = re.compile(r"[.\s]")  # a full stop would let the end of an id be read as a timestamp


def key_of(secret: str) -> bytes:
    """The key inside a secret `whsec_<base64>`; the prefix and the base64's padding may be missing.

    Raises:
        ValueError: It is none. The text does not show it.
    """
    encoded = secret.strip().removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("this is no webhook secret: whsec_ and base64 are needed, as the server has shown it")
    return key


def secret_of(key: bytes) -> str:
    """A key as users are shown it."""
    return SECRET_PREFIX + base64.b64encode(key).decode("ascii")


def signature(key: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature: `v1,<base64>`.

    Raises:
        ValueError: The id has a full stop or white space in it.
    """
    if not message_id or _UNFIT.search(message_id):
        raise ValueError("a webhook's id must not be empty, nor hold a full stop or white space")
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii")


def signed_headers(keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message, signed with each of the keys; `timestamp` in seconds since the epoch."""
    signatures = [signature(key, message_id=message_id, timestamp=timestamp, body=body) for key in keys]
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: " ".join(signatures)}
