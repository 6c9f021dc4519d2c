"""A finished tool call is in the log before anything else is waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from beray.server.agent.budget import Limits, RunLimits
from beray.server.agent.models.choice import ModelChoice
from tests.support.scripted_model import Reply, call, sequence

GOAL = "Write three lines."


def model(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


def line(number):
    return call("shell", id=str(number), command=f"echo {number} >> lines; echo line {number}")


def count_lines(bench):
    path = bench.work_dir / "lines"
    return len(path.read_text().splitlines()) if path.exists() else 0


@dataclass
class Waiting:
    """A database whose reads do something first."""

    database: Any
    before: Callable[[], Awaitable[None]]
    reads_inline: bool = False

    async def read(self, query):
        await self.before()
        return await self.database.read(query)

    def __getattr__(self, name):
        return getattr(self.database, name)


async def test_no_finished_call_is_held_while_the_run_waits_for_a_read(bench, scripted):
    """Between calls, between turns, and where limits of days are looked at."""
    server = scripted(sequence(Reply(calls=[line(1), line(2)]), Reply(calls=[line(3)]), Reply("Done.")))
    seen = []

    async def look():
        finished = await bench.events("tool.finished")
        seen.append((count_lines(bench), len(finished)))

    database = Waiting(bench.database, look)
    ledger = replace(bench._ledger(Limits(user_day=RunLimits())), database=database)
    outcome = await bench.run(GOAL, model=model(server), database=database, ledger=ledger)

    assert outcome.result == "Done."
    assert [lines for lines, finished in seen if lines != finished] == []
    assert {lines for lines, _ in seen} == {0, 1, 2, 3}


@pytest.mark.parametrize("reads_inline", [True, False])
async def test_a_stop_between_two_turns_keeps_what_the_first_has_done(bench, scripted, reads_inline):
    """Reads that are inline wait too while the database can't be read."""
    server = scripted(sequence(Reply(calls=[line(1)]), Reply("It was line 1.")))
    waits = asyncio.Event()

    async def wait():
        if count_lines(bench):
            waits.set()
            await asyncio.Event().wait()

    database = Waiting(bench.database, wait, reads_inline)
    running = asyncio.create_task(bench.run(GOAL, model=model(server), database=database))
    async with asyncio.timeout(20):
        await waits.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [event["ok"] for event in await bench.events("tool.finished")] == [True]
    assert len(await bench.events("step.finished")) == 1
    await bench.end("stopped")
    await bench.say("Which one was it?")
    await bench.run(GOAL, model=model(server))
    told = [message["content"] for message in server.requests[1]["messages"] if message["role"] == "tool"]
    assert "line 1" in told[0]
