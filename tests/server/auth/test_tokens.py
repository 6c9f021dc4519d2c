import pytest
from starlette.requests import HTTPConnection

from beray.server.auth.tokens import bearer_token, hash_token, new_token

TOKEN = "br_" + "aB3_-" * 8 + "xyz"


def request_with(*values: bytes) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", value) for value in values]})


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(1000)}

    assert len(tokens) == 1000
    assert {bearer_token(request_with(f"Bearer {token}".encode())) for token in tokens} == tokens
    assert len({hash_token(token) for token in tokens}) == 1000


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_scheme_is_read_in_any_case(scheme):
    assert bearer_token(request_with(f"{scheme}{TOKEN}".encode())) == TOKEN


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
    assert bearer_token(request_with(*values)) is None
