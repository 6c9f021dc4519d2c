"""Work that is done again and again: whatever it fails with is told, and it goes on."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy.exc import OperationalError

from beray.server.errors import Refused
from beray.server.rounds import repeat
from tests.support.waiting import until

NEVER = 3600.0


class Work:
    """Fails with these errors, one each time; then it goes well."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)


async def repeat_until(look: Callable[[], bool], work: Work, **seconds: float) -> None:
    job = asyncio.create_task(repeat(work, "tidying", **seconds))
    await until(look)
    job.cancel()
    with suppress(asyncio.CancelledError):
        await job


@pytest.mark.parametrize(
    "error",
    [
        Refused("database_unavailable"),
        OperationalError("SELECT secret", {}, Exception("server closed\nthe connection")),
        OSError(5, "Input/output error"),
        TimeoutError(),
    ],
)
async def test_fault_of_the_database_or_the_disk_is_one_line(caplog, error):
    work = Work(error)

    await repeat_until(lambda: work.times >= 2, work, first=0, every=0)

    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage().startswith("tidying failed and will be tried again: ")
    assert "\n" not in record.getMessage()
    assert "secret" not in record.getMessage()


async def test_fault_of_ours_is_told_whole_and_ends_nothing(caplog):
    work = Work(ValueError("ours"), KeyError("too"))

    await repeat_until(lambda: work.times >= 3, work, first=0, every=0)

    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "Traceback" in caplog.text


async def test_what_failed_is_tried_again_sooner():
    work = Work(Refused("starting"), Refused("starting"))

    await repeat_until(lambda: work.times >= 3, work, first=0, every=NEVER, again=0)

    assert work.errors == []
