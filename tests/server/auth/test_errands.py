import asyncio
import logging

import pytest

from beray.server.auth import errands
from beray.server.auth.errands import Errands
from beray.server.errors import Refused
from tests.support.waiting import until


async def test_failure_is_a_line_of_the_log_and_others_go_on(caplog):
    jobs, done = Errands(), []

    async def fail(error: Exception) -> None:
        raise error

    async def work() -> None:
        done.append(True)

    with caplog.at_level(logging.WARNING, "beray.auth"):
        jobs.begin(lambda: fail(Refused("database_unavailable", retry_after_seconds=1)), "noting")
        jobs.begin(lambda: fail(ValueError("odd")), "sending")
        jobs.begin(work, "working")
        await until(lambda: done and len(caplog.records) == 2, what="all three")

    assert {record.getMessage() for record in caplog.records} == {
        "noting failed: database_unavailable",
        "sending failed",
    }
    await jobs.close()


async def test_close_waits_for_what_has_begun():
    jobs, done = Errands(), []

    async def work() -> None:
        done.append(True)

    jobs.begin(work, "working")
    await jobs.close()

    assert done == [True]


async def test_close_cuts_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(errands, "CLOSE_SECONDS", 0)
    jobs, seen = Errands(), []

    async def hang() -> None:
        seen.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cut")

    jobs.begin(hang, "hanging")
    await until(lambda: seen, what="the job to begin")
    await jobs.close()

    assert seen == ["begun", "cut"]


@pytest.mark.parametrize(("most", "is_full"), [(1, True), (2, False)])
async def test_errands_are_bounded(monkeypatch, most, is_full):
    monkeypatch.setattr(errands, "MOST", most)
    jobs = Errands()

    async def nothing() -> None:
        """Done at once."""

    jobs.begin(nothing, "nothing")

    assert jobs.is_full is is_full
    await jobs.close()
    assert not jobs.is_full
