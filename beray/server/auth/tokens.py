"""Access tokens: opaque, 256 random bits, stored as their SHA-256, so that a stolen database holds no way in.

A plain hash is enough (no salt, no stretching): nobody can guess 256 bits. There are two kinds, told apart by how they
begin: a session's, from logging in, and an API token, which its owner has made for a program.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.requests import HTTPConnection

# They let secret scanners and people recognise one.
PREFIX: Final = "br_"
API_PREFIX: Final = "beray_"
_BEARER: Final = re.compile(rb"(?i:bearer) +((?:br|beray)_[A-Za-z0-9_-]{43}) *")


class TokenKey(NamedTuple):
    """What a token is looked up by."""

    hash: bytes
    is_api_token: bool


def new_token() -> str:
    """A session's token that nobody has had before."""
    return PREFIX + secrets.token_urlsafe(32)


def new_api_token() -> str:
    """An API token that nobody has had before."""
    return API_PREFIX + secrets.token_urlsafe(32)


def is_api_token(token: str) -> bool:
    """Whether it has the form of an API token."""
    return token.startswith(API_PREFIX)


def hash_token(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def token_key(token: str) -> TokenKey:
    """What a token is looked up by."""
    return TokenKey(hash_token(token), is_api_token(token))


def authorization(request: HTTPConnection) -> list[bytes]:
    """What the request says in `Authorization`."""
    return [value for name, value in request.scope["headers"] if name == b"authorization"]


def bearer_token(values: Sequence[bytes]) -> str | None:
    """The token in what `Authorization` says; None unless there is exactly one, of the form we give out."""
    if len(values) != 1:
        return None
    match = _BEARER.fullmatch(values[0])
    return None if match is None else match[1].decode("ascii")
