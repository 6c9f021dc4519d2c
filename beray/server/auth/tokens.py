"""Access tokens: opaque, 256 random bits, stored as their SHA-256, so that a stolen database holds no way in.

A plain hash is enough (no salt, no stretching): nobody can guess 256 bits.
"""

import hashlib
import re
import secrets
from typing import Final

from starlette.requests import HTTPConnection

PREFIX: Final = "br_"  # lets secret scanners and people recognise one
_BEARER: Final = re.compile(rb"bearer +(br_[A-Za-z0-9_-]{43}) *", re.IGNORECASE)


def new_token() -> str:
    """A token nobody has had before."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def bearer_token(request: HTTPConnection) -> str | None:
    """The token of the request's `Authorization` header; None unless there is exactly one, of the form we give out."""
    values = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    match = _BEARER.fullmatch(values[0])
    return None if match is None else match[1].decode("ascii")
