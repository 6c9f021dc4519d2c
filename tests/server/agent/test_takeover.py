"""An attempt that another has taken over, or that begins anew; what a real kill leaves is in test_kill_nine.py."""

import itertools

import pytest

from beray.server.agent.models.choice import ModelChoice
from beray.server.db.attempts import Attempt
from beray.server.events.log import Fenced
from tests.support.agent_bench import Crash, CrashAt
from tests.support.five_steps import CALLS, GOAL, STEPS, STORY, give_files


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


async def test_a_dead_attempt_that_lives_on_is_fenced(bench, scripted):
    """It may not write a single event once another attempt has begun."""
    server = scripted(STORY)
    give_files(bench)
    emit = bench._emitter(Attempt(1, 1))
    await bench.database.write(bench._take)
    await bench.run(GOAL, model=model(server))
    count = len(await bench.events())

    with pytest.raises(Fenced):
        await bench.run(GOAL, model=model(server), emit=emit, run=2)

    assert len(await bench.events()) == count


async def test_a_run_taken_up_after_its_last_turn_does_nothing(bench, scripted):
    """The process died between the last turn's commit and the run's end."""
    server = scripted(STORY)
    give_files(bench)
    await bench.run(GOAL, model=model(server))
    count = len(await bench.events())

    outcome = await bench.run(GOAL, model=model(server))

    assert outcome.result == "All done."
    assert len(server.requests) == STEPS
    assert len(await bench.events()) == count


async def test_dying_again_and_again_still_ends(bench, scripted):
    server = scripted(STORY)
    give_files(bench)

    for number in itertools.count():
        bench.crash = CrashAt(6)
        try:
            outcome = await bench.run(GOAL, model=model(server))
        except Crash:
            assert number < 20
            continue
        break

    assert outcome.result == "All done."
    assert outcome.usage["tool_calls"] == CALLS
