import copy
import inspect
import pickle

import pytest

import beray
from beray import exceptions
from beray.exceptions import (
    APIError,
    AuthenticationError,
    BeRayException,
    ConflictError,
    ConnectionFailed,
    EventTooLarge,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    TLSError,
    UnprocessableEntityError,
)

ALL = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, BaseException)]


def test_the_tree_is_as_drawn() -> None:
    assert all(issubclass(kind, BeRayException) for kind in ALL)
    for kind in (AuthenticationError, NotFoundError, ConflictError, UnprocessableEntityError):
        assert kind.__bases__ == (APIError,)
    assert ConnectionFailed.__bases__ == RequestTimeout.__bases__ == (NetworkError,)
    assert TLSError.__bases__ == (ConnectionFailed,)
    assert EventTooLarge.__bases__ == (ProtocolError,)
    for kind in ALL:
        assert kind.__name__ in (exceptions.__doc__ or "")
        assert kind.__name__ in beray.__all__


def test_an_api_error_survives_pickling_but_its_response_stays_behind() -> None:
    """The response holds the request's headers, and so the token."""
    error = UnprocessableEntityError(
        422,
        [{"loc": ["body"], "msg": "x", "type": "y"}],
        code="validation_error",
        request_id="r",
        method="POST",
        url="http://h/",
        errors=[{"loc": ["body"]}],
        retry_after=1.5,
        response=lambda: "not picklable",
    )

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is UnprocessableEntityError
    assert again.__dict__ == {**error.__dict__, "response": None}
    assert str(again) == str(error)


def test_a_refusal_for_want_of_a_login_says_so() -> None:
    """Of a BeRay server, 403 is always about an API token that does what only a login may."""
    assert "login()" in (AuthenticationError(403, code="login_needed").hint or "")


def test_a_network_error_survives_pickling() -> None:
    error = ConnectionFailed("cut", method="GET", url="http://h/", was_sent=False)

    again = copy.copy(pickle.loads(pickle.dumps(error)))

    assert type(again) is ConnectionFailed
    assert again.__dict__ == error.__dict__
    assert str(again) == "cut"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (APIError(500), "500: Internal Server Error. The server's log says more; give its operator the request id."),
        (
            APIError(500, ""),
            "500: Internal Server Error. The server's log says more; give its operator the request id.",
        ),
        (APIError(799), "799: no further detail"),
        (NotFoundError(404, "没有", code="task_not_found"), "404 task_not_found: 没有"),
        (
            APIError(502, "<html>\n <b>Bad</b>\n"),
            "502: <html> <b>Bad</b>. What stands before the server can't reach it; try again later.",
        ),
        (APIError(400, "no", method="GET", url="http://h/"), "400: no (GET http://h/)"),
        (APIError(400, "no", method="GET", url="http://h/", request_id="r"), "400: no (GET http://h/, request r)"),
        (APIError(400, "no", request_id="r\nX: y"), "400: no (request r X: y)"),
        (APIError(422, [{"loc": ["query", "limit"], "msg": "too\nlow"}, "b"]), "422: query.limit: too low; b"),
        (APIError(422, {"msg": "bad"}), "422: bad"),
        (APIError(422, {"loc": "odd"}), "422: {'loc': 'odd'}"),
        (ConnectionFailed("a\nb"), "a b"),
        (ProtocolError("a\r\nb"), "a b"),
        (EventTooLarge("a"), "a"),
    ],
)
def test_an_error_is_one_line(error: BeRayException, line: str) -> None:
    assert str(error) == line


def test_a_long_detail_is_cut_in_the_line_alone() -> None:
    error = APIError(502, "x" * 10_000)

    assert len(str(error)) < 500
    assert error.error_detail == "x" * 10_000
