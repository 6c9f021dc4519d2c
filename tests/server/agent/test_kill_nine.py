"""kill -9 at every point of a five-step task, before and after each commit; another process takes the task over."""

import signal

import pytest

from beray.server.agent.models.choice import ModelChoice
from tests.support.dying_process import Attempt, attempt, outcome_of, points_of
from tests.support.five_steps import GOAL, STORY, assert_nothing_was_repeated, give_files

POINTS = 30


def work_of(bench, server, **changes):
    model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)
    return Attempt(bench.root, bench.python, GOAL, model, **changes)


async def test_every_point_of_the_story_is_tried(bench, scripted):
    server = scripted(STORY)
    give_files(bench)

    assert await attempt(work_of(bench, server)) == 0

    assert_nothing_was_repeated(bench, outcome_of(bench.root), await bench.events(), server)
    assert len(points_of(bench.root)) == POINTS


@pytest.mark.parametrize("number", range(1, POINTS + 1))
async def test_a_killed_process_leaves_all_that_another_needs(bench, scripted, number):
    server = scripted(STORY)
    give_files(bench)
    assert await attempt(work_of(bench, server, dies_at=number)) == -signal.SIGKILL
    before = await bench.events()

    assert await attempt(work_of(bench, server)) == 0

    events = await bench.events()
    assert events[: len(before)] == before, "what was seen once stays"
    assert_nothing_was_repeated(bench, outcome_of(bench.root), events, server)
