"""What is repeated, and after how long: tables, and what no retry may ever do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.exceptions import APIError, ConflictError, ConnectionFailed, RequestTimeout, TLSError
from beray.protocol import calls
from beray.protocol.retry import RetryPolicy, is_worth_repeating

GET = calls.get_task(1)
PLAIN_POST = calls.login("a@b.c", "pw")
KEYED_POST = calls.create_task("g", tools=None, idempotency_key="k")
CUT = ConnectionFailed("cut", was_sent=True)
REFUSED = ConnectionFailed("refused", was_sent=False)
SILENT = RequestTimeout("silent", was_sent=True)


@pytest.mark.parametrize(
    ("call", "failure", "is_key_honoured", "is_repeated"),
    [
        (GET, CUT, False, True),
        (GET, SILENT, False, True),
        (GET, REFUSED, False, True),
        (GET, TLSError("certificate", was_sent=False), True, False),
        (PLAIN_POST, REFUSED, False, True),
        (PLAIN_POST, CUT, True, False),
        (PLAIN_POST, SILENT, True, False),
        (KEYED_POST, REFUSED, False, True),
        (KEYED_POST, CUT, False, False),
        (KEYED_POST, CUT, True, True),
        (KEYED_POST, SILENT, True, True),
        (KEYED_POST, ConflictError(409, code="idempotency_mismatch"), True, False),
        (KEYED_POST, ConflictError(409, code="idempotency_in_progress"), False, True),
        (PLAIN_POST, ConflictError(409, code="idempotency_in_progress"), False, False),
    ],
)
def test_network_failures(call, failure, is_key_honoured, is_repeated):
    assert is_worth_repeating(call, failure, is_key_honoured=is_key_honoured) is is_repeated


@pytest.mark.parametrize("refusal", [APIError(429), APIError(503, retry_after=1.0)], ids=str)
@pytest.mark.parametrize("call", [GET, PLAIN_POST, KEYED_POST])
def test_a_server_that_did_nothing_is_asked_again(call, refusal):
    assert is_worth_repeating(call, refusal, is_key_honoured=False)


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_where_it_is_unknown_only_what_is_safe_is_repeated(status):
    assert is_worth_repeating(GET, APIError(status), is_key_honoured=False)
    assert is_worth_repeating(KEYED_POST, APIError(status), is_key_honoured=True)
    assert not is_worth_repeating(KEYED_POST, APIError(status), is_key_honoured=False)
    assert not is_worth_repeating(PLAIN_POST, APIError(status), is_key_honoured=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 500, 501])
@pytest.mark.parametrize("call", [GET, PLAIN_POST, KEYED_POST])
def test_other_answers_are_final(call, status):
    assert not is_worth_repeating(call, APIError(status), is_key_honoured=True)


def test_a_body_that_is_used_up_is_not_sent_again():
    call = calls.upload_file(1, "a", iter([b"x"]), content_type="x", is_repeatable=False)

    assert not is_worth_repeating(call, APIError(503), is_key_honoured=True)
    assert not is_worth_repeating(call, REFUSED, is_key_honoured=True)


def delay(policy: RetryPolicy, retries: int, *, retry_after=None, elapsed=0.0, chance=1.0):
    return policy.delay_seconds(retries, retry_after=retry_after, elapsed_seconds=elapsed, random=lambda: chance)


def test_delays_double_to_their_bound():
    policy = RetryPolicy(max_retries=9, first_delay_seconds=0.5, max_delay_seconds=4.0)

    assert [delay(policy, retries) for retries in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert delay(policy, 9) is None


def test_the_servers_wish_counts_up_to_a_bound():
    policy = RetryPolicy(max_retry_after_seconds=30)

    assert delay(policy, 0, retry_after=7.0, chance=0.0) == 7.0
    assert delay(policy, 0, retry_after=31.0) is None


def test_no_attempt_begins_after_the_deadline():
    policy = RetryPolicy(deadline_seconds=10, first_delay_seconds=2)

    assert delay(policy, 0, elapsed=8.0) == 2.0
    assert delay(policy, 0, elapsed=8.1) is None


@given(st.integers(0, 2000), st.floats(0, 1), st.floats(0, 1000))
def test_delay_is_never_negative_nor_above_its_bound(retries, chance, elapsed):
    policy = RetryPolicy(max_retries=3000, deadline_seconds=float("inf"))

    seconds = delay(policy, retries, elapsed=elapsed, chance=chance)

    assert seconds is not None
    assert policy.first_delay_seconds / 2 <= seconds <= policy.max_delay_seconds
