"""Status, headers and body become a value or the right exception."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray import exceptions
from beray.exceptions import (
    APIError,
    AuthenticationError,
    BeRayException,
    ConflictError,
    ConnectionFailed,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    UnprocessableEntityError,
)
from beray.protocol.responses import Answer, error_of, retry_after_seconds, value_of

DATE = "Tue, 24 Nov 2026 08:00:00 GMT"


def answer(status: int, body: object = b"", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=content, method="GET", url="http://x/y")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, APIError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (405, APIError),
        (409, ConflictError),
        (413, APIError),
        (422, UnprocessableEntityError),
        (429, APIError),
        (500, APIError),
        (503, APIError),
        (599, APIError),
    ],
)
def test_status_decides_the_exception(status, kind):
    error = error_of(answer(status, {"detail": "why", "code": "some_code", "request_id": "req_1"}))

    assert type(error) is kind
    assert isinstance(error, APIError)
    assert (error.status_code, error.error_detail, error.code, error.request_id) == (
        status,
        "why",
        "some_code",
        "req_1",
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "a sentence"}, "a sentence"),
        (
            {"detail": [{"loc": ["body", "email"], "msg": "wrong", "type": "t"}]},
            [{"loc": ["body", "email"], "msg": "wrong", "type": "t"}],
        ),
        ({"detail": None}, None),
        ({"message": "no detail"}, '{"message": "no detail"}'),
        (["a", "list"], '["a", "list"]'),
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_error_detail_is_the_bodys_detail_unchanged_else_its_text(body, detail):
    assert error_of(answer(500, body)).error_detail == detail


def test_errors_of_a_422_come_from_our_shape_or_from_a_list():
    items = [{"loc": ["body", "goal"], "msg": "m", "type": "t"}]

    assert error_of(answer(422, {"detail": "d", "errors": items})).errors == tuple(items)
    assert error_of(answer(422, {"detail": items})).errors == tuple(items)
    assert error_of(answer(400, {"detail": items})).errors == ()


@pytest.mark.parametrize(
    "body", [{"detail": "one\ntwo\r\nthree"}, b"x" * 5000, {"detail": [{"msg": "a\nb"}, "c"]}, b""]
)
def test_str_is_one_line(body):
    line = str(error_of(answer(500, body)))

    assert "\n" not in line
    assert line.startswith("500")
    assert len(line) < 1000


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.none() | st.text()))
def test_any_body_makes_an_error_of_one_line(body):
    assert len(str(error_of(answer(500, body))).splitlines()) == 1


def test_request_id_comes_from_the_header_where_the_body_has_none():
    assert error_of(answer(502, b"", X_Request_ID="req_9")).request_id == "req_9"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Tue, 24 Nov 2026 08:00:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "Tue, 24 Nov 2026 07:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Tue, 24 Nov 2026 08:00:30 GMT"}, None),
        ({"Retry-After": "Tue, 24 Nov 2026 08:00:30", "Date": DATE}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999999 00:00:00 GMT", "Date": DATE}, None),
        ({"Retry-After": "Tue, 24 Nov 2026 08:00:30 +99999999999999", "Date": DATE}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "٣"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert retry_after_seconds(headers) == seconds


def test_value_is_the_json():
    assert value_of(answer(200, {"a": "中"})) == {"a": "中"}


def test_success_that_is_not_json_says_what_may_be_wrong():
    with pytest.raises(ProtocolError, match="base_url"):
        value_of(answer(200, b"<html>", Content_Type="text/html"))


@pytest.mark.parametrize(
    "error",
    [
        error_of(answer(422, {"detail": [{"msg": "m"}], "code": "c", "request_id": "r"}, Retry_After="3")),
        NotFoundError(404, "d"),
        ConnectionFailed("gone", method="GET", url="http://x", was_sent=False),
        RequestTimeout("slow"),
        ProtocolError("odd"),
    ],
)
def test_errors_can_be_pickled(error):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_tree_of_exceptions_is_the_drawn_one():
    assert issubclass(APIError, BeRayException)
    assert issubclass(NetworkError, BeRayException)
    assert not issubclass(NetworkError, APIError)
    for name in ("AuthenticationError", "NotFoundError", "ConflictError", "UnprocessableEntityError"):
        assert issubclass(getattr(exceptions, name), APIError)
