"""Small jobs that are done after their request has been answered, so that nobody waits for them or sees their time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from beray.server.errors import Refused

MOST: Final = 100  # at a time
LATER_SECONDS: Final = 0.1  # else it would slow down the answer itself, which is still being sent (measured: by 1 ms)
CLOSE_SECONDS: Final = 3.0

log = logging.getLogger("beray.auth")


class Errands:
    """Begins jobs and waits for none of them; `close` when done."""

    def __init__(self) -> None:
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether no other job can be begun now."""
        return len(self._jobs) >= MOST

    def begin(self, job: Callable[[], Awaitable[object]], what: str) -> None:
        """Do the job soon; a failure is a line of the log. Ask `is_full` before.

        Args:
            job: What is done.
            what: What to call it in the log.
        """
        task = asyncio.create_task(_done(job, what))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def close(self) -> None:
        """Give what has begun a moment to end, then cut it."""
        jobs = set(self._jobs)
        if not jobs:
            return
        _, late = await asyncio.wait(jobs, timeout=CLOSE_SECONDS)
        for job in late:
            job.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def _done(job: Callable[[], Awaitable[object]], what: str) -> None:
    await asyncio.sleep(LATER_SECONDS)
    try:
        await job()
    except Refused as refused:
        log.warning("%s failed: %s", what, refused.code)
    except Exception:  # a fault of ours; there is nobody to raise it to
        log.exception("%s failed", what)
