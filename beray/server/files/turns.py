"""Work in threads that may take seconds: each user has a few turns at a time, so that one can't take all threads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class _Line:
    semaphore: asyncio.Semaphore
    people: int = 0  # who has a turn or waits for one


class Turns:
    """Who finds the user's turns taken waits; how many can is bounded by the server's connections.

    Args:
        most: Turns of one user at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[int, _Line] = {}

    @asynccontextmanager
    async def taken(self, user_id: int) -> AsyncIterator[None]:
        """Hold one of the user's turns for as long as the block lasts."""
        line = self._lines.setdefault(user_id, _Line(asyncio.Semaphore(self._most)))
        line.people += 1
        try:
            async with line.semaphore:
                yield
        finally:
            line.people -= 1
            if line.people == 0:
                del self._lines[user_id]
