"""Work that is done again and again, as long as the process lives: no fault ends it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import DBAPIError

from beray.server.db.faults import one_line
from beray.server.errors import Refused

Work = Callable[[], Awaitable[object]]

log = logging.getLogger("beray")


async def repeat(work: Work, what: str, *, first: float, every: float, again: float | None = None) -> None:
    """Do the work until cancelled.

    Args:
        work: What is done.
        what: What to call it in the log ("tidying").
        first: Seconds until the first time.
        every: Seconds between the end of one time and the next.
        again: Seconds after a time that failed; None: as after any other.
    """
    await asyncio.sleep(first)
    while True:
        is_done = await attempt(work, what)
        await asyncio.sleep(every if is_done or again is None else again)


async def attempt(work: Work, what: str) -> bool:
    """Do the work once; whether it was done. Faults of the database and the disk are one line of the log each."""
    try:
        await work()
    except (DBAPIError, OSError, Refused) as error:
        log.warning("%s failed and will be tried again: %s", what, one_line(error) or type(error).__name__)
    except Exception:  # a fault of ours; the next time may go well
        log.exception("%s failed and will be tried again", what)
    else:
        return True
    return False
