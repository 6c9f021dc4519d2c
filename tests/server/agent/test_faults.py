"""How long to wait after a fault, and what is never shown of it."""

import pytest
from pydantic_ai.exceptions import ModelRateLimitError

from beray.server.agent.models.faults import MOST_WAIT_SECONDS, redact, wait_seconds

KEY = "abcdefgh-0123456789-uvwxyz"


@pytest.mark.parametrize(
    "reason",
    [
        "Incorrect API key provided: sk-proj-abcdefghijklmnop",
        "Incorrect API key provided: sk-pr***mnop",
        "Invalid token abcdefgh******uvwxyz",
        f"Bearer {KEY} is not known",
        f"the key {KEY} is not known",
        "the key starting with abcdefgh is not known",
        "the key ending in uvwxyz is not known",
    ],
)
def test_no_part_of_a_key_is_shown(reason):
    shown = redact(reason, KEY)

    assert not any(part in shown for part in ("sk-", "abcdefgh", "uvwxyz", "mnop"))
    assert "***" in shown


def test_other_words_are_left_alone():
    reason = "The key provided is not allowed to use model gpt-5 (request req_123456)."

    assert redact(reason, KEY) == reason


@pytest.mark.parametrize(("asked", "waited"), [(3.5, 3.5), (0, 0), (7200, MOST_WAIT_SECONDS)])
def test_the_servers_wish_is_honoured_up_to_a_minute(asked, waited):
    assert wait_seconds(ModelRateLimitError("m", "slow down", retry_after=asked), 1) == waited


def test_waits_grow_and_stay_bounded(monkeypatch):
    monkeypatch.setattr("beray.server.agent.models.faults.FIRST_WAIT_SECONDS", 0.5)
    error = ModelRateLimitError("m", "slow down")

    assert 0.25 <= wait_seconds(error, 1) <= 0.5
    assert 2 <= wait_seconds(error, 4) <= 4
    assert wait_seconds(error, 50) <= MOST_WAIT_SECONDS
