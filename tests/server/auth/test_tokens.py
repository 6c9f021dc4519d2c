import pytest
from starlette.requests import HTTPConnection

from beray.server.auth.tokens import authorization, bearer_token, hash_token, new_token

TOKEN = "br_" + "aB3_-" * 8 + "xyz"


def borne(*values: bytes) -> str | None:
    """The token of a request with such headers."""
    headers = [(b"accept", b"*/*"), *((b"authorization", value) for value in values)]
    return bearer_token(authorization(HTTPConnection({"type": "http", "headers": headers})))


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(1000)}

    assert len(tokens) == 1000
    assert {borne(f"Bearer {token}".encode()) for token in tokens} == tokens
    assert len({hash_token(token) for token in tokens}) == 1000


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_scheme_is_read_in_any_case(scheme):
    assert borne(f"{scheme}{TOKEN}".encode()) == TOKEN


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [TOKEN.encode()],
        [b"Bearer"],
        [b"Bearer "],
        [b"Basic " + TOKEN.encode()],
        [b"Bearer " + TOKEN[:-1].encode()],
        [b"Bearer " + TOKEN.encode() + b"x"],
        [b"Bearer " + TOKEN.encode() + b" " + TOKEN.encode()],
        [b"Bearer " + TOKEN.encode() + b"\n"],
        [b"Bearer " + TOKEN[:-1].encode() + b"\xff"],
        [b"Bearer " + TOKEN.encode(), b"Bearer " + TOKEN.encode()],
        [b"Bearer " + b"x" * 100_000],
    ],
)
def test_anything_but_one_token_is_none(values):
    assert borne(*values) is None
