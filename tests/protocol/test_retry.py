import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.exceptions import APIError, ConflictError, ConnectionFailed, RequestTimeout, TLSError
from beray.protocol import calls
from beray.protocol.calls import Call
from beray.protocol.retry import Failure, RetryPolicy, is_worth_repeating

IDEMPOTENT = calls.get_task(1)
KEYED = calls.create_task("g", tools=None, idempotency_key="k")
PLAIN = calls.login("a@b.c", "p")
ONE_SHOT = calls.upload_file(1, "a", b"", content_type="a/b", is_repeatable=False)

NEVER_SENT = ConnectionFailed("refused", was_sent=False)
CUT = ConnectionFailed("cut")
LATE = RequestTimeout("late")
IN_PROGRESS = ConflictError(409, code="idempotency_in_progress")


@pytest.mark.parametrize(
    ("failure", "idempotent", "keyed_honoured", "keyed_ignored", "plain"),
    [
        (NEVER_SENT, True, True, True, True),
        (RequestTimeout("late", was_sent=False), True, True, True, True),
        (APIError(429), True, True, True, True),
        (APIError(503), True, True, True, True),
        (CUT, True, True, False, False),
        (LATE, True, True, False, False),
        (APIError(408), True, True, False, False),
        (APIError(502), True, True, False, False),
        (APIError(504), True, True, False, False),
        (IN_PROGRESS, False, True, True, False),
        (ConflictError(409, code="idempotency_mismatch"), False, False, False, False),
        (TLSError("certificate", was_sent=False), False, False, False, False),
        (APIError(500), False, False, False, False),
        (APIError(400), False, False, False, False),
        (APIError(501), False, False, False, False),
    ],
)
def test_what_is_repeated(
    failure: Failure, idempotent: bool, keyed_honoured: bool, keyed_ignored: bool, plain: bool
) -> None:
    assert is_worth_repeating(IDEMPOTENT, failure, is_key_honoured=False) is idempotent
    assert is_worth_repeating(KEYED, failure, is_key_honoured=True) is keyed_honoured
    assert is_worth_repeating(KEYED, failure, is_key_honoured=False) is keyed_ignored
    assert is_worth_repeating(PLAIN, failure, is_key_honoured=True) is plain
    assert not is_worth_repeating(ONE_SHOT, failure, is_key_honoured=True)


@pytest.mark.parametrize(
    ("call", "is_idempotent"),
    [
        (calls.list_tasks(), True),
        (calls.stop_task(1), True),
        (calls.delete_task(1), True),
        (calls.delete_file(1, "a"), True),
        (calls.upload_file(1, "a", b"", content_type="a/b"), True),
        (calls.download_files_as_zip(1, ()), True),
        (calls.start_task(1), False),
        (calls.logout(), False),
        (calls.register("a", "b", "c"), False),
        (calls.request_verification_code("a"), False),
        (calls.login_with_form("a", "b"), False),
    ],
)
def test_which_calls_may_be_done_twice(call: Call, is_idempotent: bool) -> None:
    assert call.is_idempotent is is_idempotent


def delay(policy: RetryPolicy, retries: int, *, retry_after: float | None = None, elapsed: float = 0.0) -> float | None:
    return policy.delay_seconds(retries, retry_after=retry_after, elapsed_seconds=elapsed, random=lambda: 1.0)


def test_the_waits_double_up_to_a_cap() -> None:
    policy = RetryPolicy(max_retries=6, first_delay_seconds=0.5, max_delay_seconds=4.0)

    assert [delay(policy, retries) for retries in range(7)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, None]


def test_chance_cuts_a_wait_to_a_half_at_most() -> None:
    policy = RetryPolicy(first_delay_seconds=1.0)

    assert policy.delay_seconds(0, retry_after=None, elapsed_seconds=0, random=lambda: 0.0) == 0.5


def test_what_the_server_asks_for_is_waited_for() -> None:
    policy = RetryPolicy()

    assert policy.delay_seconds(0, retry_after=7.0, elapsed_seconds=0, random=lambda: 0.0) == 7.0
    assert delay(policy, 0, retry_after=31.0) is None


def test_no_attempt_begins_after_the_deadline() -> None:
    policy = RetryPolicy(deadline_seconds=10.0)

    assert delay(policy, 0, elapsed=9.5) == 0.5
    assert delay(policy, 0, elapsed=9.6) is None
    assert delay(policy, 0, retry_after=10.1) is None


def test_without_retries_there_is_no_wait() -> None:
    assert delay(RetryPolicy(max_retries=0), 0) is None


@given(
    retries=st.integers(min_value=0, max_value=10**6),
    retry_after=st.none() | st.floats(min_value=0, allow_nan=False),
    elapsed=st.floats(min_value=0, max_value=1e6),
    chance=st.floats(min_value=0, max_value=1),
)
def test_a_wait_never_leaves_its_bounds(retries: int, retry_after: float | None, elapsed: float, chance: float) -> None:
    policy = RetryPolicy(max_retries=10**7)

    seconds = policy.delay_seconds(retries, retry_after=retry_after, elapsed_seconds=elapsed, random=lambda: chance)

    if seconds is not None:
        assert seconds >= (retry_after or 0)
        assert elapsed + seconds <= policy.deadline_seconds
