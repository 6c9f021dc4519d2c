"""When a message that was not taken is tried again."""

import pytest

from beray.server.webhooks.schedule import AGAIN_SECONDS, next_try_ms


def after(attempts: int, *, status: int | None = 500, asked: float | None = None, random: float = 0.0) -> float | None:
    found = next_try_ms(attempts, status=status, asked_seconds=asked, random=random)
    return None if found is None else found / 1000


def test_pauses_grow_over_most_of_a_day_and_then_it_is_given_up():
    assert [after(attempts) for attempts in range(1, 8)] == [5, 300, 1800, 7200, 18_000, 36_000, None]
    assert 16 < sum(AGAIN_SECONDS) / 3600 < 24


def test_what_failed_together_does_not_come_back_together():
    assert after(2, random=0.5) == 330
    assert after(2, random=1.0) == 360


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (503, 60.0, 60),
        (429, 3600.0, 3600),
        (503, 1.0, 5),  # sooner than we would
        (503, 1e300, 43_200),
        (503, None, 5),
        (500, 60.0, 5),
        (None, 60.0, 5),
    ],
)
def test_receiver_may_ask_for_later(status, asked, seconds):
    assert after(1, status=status, asked=asked) == seconds


def test_receiver_that_is_gone_is_not_called_again():
    assert after(1, status=410, asked=5.0) is None
