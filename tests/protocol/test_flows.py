"""One call as a flow, without a network: a scripted driver answers its effects."""

import json

import pytest

from beray.exceptions import (
    APIError,
    ConnectionFailed,
    NotFoundError,
)
from beray.protocol import calls, flows
from tests.support.scripted_driver import CUT, Driver, answer, conditions


def test_a_call_is_repeated_until_it_succeeds() -> None:
    driver = Driver([CUT, answer(503, Retry_After="3"), answer(200, {"id": 1})])

    result = driver.run(flows.request(calls.get_task(1), conditions()))

    assert result.body == b'{"id": 1}'
    assert driver.slept == [0.5, pytest.approx(3.05)]


def test_when_no_attempt_is_left_the_last_error_is_raised() -> None:
    driver = Driver([CUT, CUT, answer(503)])

    with pytest.raises(APIError) as error:
        driver.run(flows.request(calls.get_task(1), conditions()))

    assert error.value.status_code == 503


def test_an_answer_that_will_not_change_is_not_asked_for_again() -> None:
    driver = Driver([answer(404, {"detail": "no"})])

    with pytest.raises(NotFoundError):
        driver.run(flows.request(calls.get_task(1), conditions()))

    assert driver.slept == []


def test_an_accepted_status_is_an_answer() -> None:
    driver = Driver([answer(503, {"engine": "starting"})])

    assert driver.run(flows.request(calls.get_ready(), conditions())).status == 503


def test_a_creation_is_repeated_after_a_cut_only_where_the_server_honours_keys() -> None:
    shared = conditions()
    call = calls.create_task("g", tools=None, idempotency_key="k")

    with pytest.raises(ConnectionFailed):
        Driver([CUT]).run(flows.request(call, shared))
    Driver([answer(200, [], Idempotency_Supported="true")]).run(flows.request(calls.list_tasks(), shared))

    assert Driver([CUT, answer(201)]).run(flows.request(call, shared)).status == 201


def test_an_error_answer_too_tells_that_keys_are_honoured() -> None:
    driver = Driver([answer(429, Idempotency_Supported="true"), CUT, answer(201)])

    call = calls.create_task("g", tools=None, idempotency_key="k")

    assert driver.run(flows.request(call, conditions())).status == 201


def test_a_repeated_deletion_that_finds_nothing_has_worked() -> None:
    """The first attempt did it, its answer was lost; or a 503 said that the rest goes on in the background."""
    for first in (CUT, answer(503)):
        result = Driver([first, answer(404)]).run(flows.request(calls.delete_task(1), conditions(language="en")))

        assert json.loads(result.body) == {"message": "Deleted."}


def test_a_first_deletion_that_finds_nothing_has_not_worked() -> None:
    with pytest.raises(NotFoundError):
        Driver([answer(404)]).run(flows.request(calls.delete_task(1), conditions()))
