"""Times as the wire shows them."""

import pytest

from beray.server.clock import iso, iso_or_none


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_time_is_shown_in_utc_to_the_millisecond(at_ms, shown):
    assert iso(at_ms) == iso_or_none(at_ms) == shown


def test_time_that_has_not_come_is_null():
    assert iso_or_none(None) is None
