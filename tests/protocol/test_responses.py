import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from beray.exceptions import (
    APIError,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    ProtocolError,
    UnprocessableEntityError,
)
from beray.protocol.responses import Answer, error_of, retry_after_seconds, value_of


def answer(status: int, content: Any = None, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = CaseInsensitiveDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(status=status, headers=named, body=body, method="GET", url="http://h/api/v1/tasks/3")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, APIError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, APIError),
        (422, UnprocessableEntityError),
        (429, APIError),
        (500, APIError),
        (302, APIError),
    ],
)
def test_each_status_has_its_exception(status: int, kind: type[APIError]) -> None:
    error = error_of(answer(status, {"detail": "x"}))

    assert type(error) is kind
    assert error.status_code == status


def test_the_one_error_shape_fills_every_field() -> None:
    items = [{"loc": ["body", "email"], "msg": "not an address", "type": "value_error"}]
    body = {"detail": "那不是邮箱", "code": "invalid_email", "status": 422, "request_id": "r1", "errors": items}

    error = error_of(answer(422, body, retry_after="7"))

    assert (error.error_detail, error.code, error.request_id) == ("那不是邮箱", "invalid_email", "r1")
    assert (error.method, error.url, error.errors) == ("GET", "http://h/api/v1/tasks/3", tuple(items))
    assert error.retry_after == 7.0


def test_a_list_as_detail_stays_a_list() -> None:
    items = [{"loc": ["body", "goal"], "msg": "Field required", "type": "missing"}]

    error = error_of(answer(422, {"detail": items}))

    assert error.error_detail == items
    assert error.errors == tuple(items)
    assert str(error) == "422: body.goal: Field required (GET http://h/api/v1/tasks/3)"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"Bad Gateway\n", "Bad Gateway\n"),
        (b"", ""),
        (b'{"error": "x"}', '{"error": "x"}'),
        (b"[1]", "[1]"),
        (b"\xff", "\ufffd"),
        (b'{"detail": null}', None),
        (b'{"detail": {"a": 1}}', {"a": 1}),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_what_has_no_detail_is_given_as_text(body: bytes, detail: object) -> None:
    assert error_of(answer(502, body)).error_detail == detail


def test_the_request_id_may_come_by_the_header_alone() -> None:
    assert error_of(answer(500, b"oops", X_Request_ID="r2")).request_id == "r2"


@given(st.binary(max_size=200) | st.builds(lambda v: json.dumps(v).encode(), st.dictionaries(st.text(), st.none())))
def test_any_body_makes_an_error_of_one_line(body: bytes) -> None:
    error = error_of(answer(500, body))

    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b"{"])
def test_a_success_that_is_not_json_says_so(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="base_url") as error:
        value_of(answer(200, body, content_type="text/html"))

    assert "text/html" in str(error.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": " 12 "}, 12.0),
        ({"Retry_After": "-1"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "٣"}, None),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(answer(503, b"", **headers).headers) == seconds
