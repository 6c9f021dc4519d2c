"""The table of states: closed, and consistent with what ends and what can be stopped."""

import pytest

from beray.protocol.status import ENDED, STATUSES, STOPPABLE, TRANSITIONS


def test_every_state_has_its_row_and_rows_name_states_only():
    assert set(TRANSITIONS) == set(STATUSES)
    assert set().union(*TRANSITIONS.values()) <= set(STATUSES)


def test_ended_and_stoppable_divide_the_states():
    assert set(STATUSES) == ENDED | STOPPABLE
    assert not ENDED & STOPPABLE


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_task_can_only_be_queued_again(status):
    assert TRANSITIONS[status] == {"queued"}


@pytest.mark.parametrize("status", sorted(STOPPABLE))
def test_what_is_stoppable_can_become_stopped(status):
    assert "stopped" in TRANSITIONS[status]


def test_nothing_is_completed_without_having_run():
    assert [old for old in STATUSES if "completed" in TRANSITIONS[old]] == ["running"]


def test_no_state_follows_itself():
    assert not any(status in TRANSITIONS[status] for status in STATUSES)
