"""Work that takes threads or descriptors for seconds: each user has a few turns at a time, and can't take them all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect

LOOK_SECONDS = 1.0  # between two looks whether who waits is still there

IsGone = Callable[[], Awaitable[bool]]
"""Whether the client has hung up."""


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
    async def taken(self, user_id: int, is_gone: IsGone) -> AsyncIterator[None]:
        """Hold one of the user's turns for as long as the block lasts. Raises as `take`."""
        give_back = await self.take(user_id, is_gone)
        try:
            yield
        finally:
            give_back()

    async def take(self, user_id: int, is_gone: IsGone) -> Callable[[], None]:
        """Take one of the user's turns, when it comes; call what is returned, once, to give it back.

        Raises:
            ClientDisconnect: The client was gone before.
        """
        line = self._lines.setdefault(user_id, _Line(asyncio.Semaphore(self._most)))
        line.people += 1
        has_turn = False
        try:
            while not has_turn:
                has_turn = await _acquired(line.semaphore)
                if not has_turn and await is_gone():
                    raise ClientDisconnect
        finally:
            if not has_turn:
                self._leave(user_id, line)

        def give_back() -> None:
            line.semaphore.release()
            self._leave(user_id, line)

        return give_back

    def _leave(self, user_id: int, line: _Line) -> None:
        line.people -= 1
        if line.people == 0:
            del self._lines[user_id]


async def _acquired(semaphore: asyncio.Semaphore) -> bool:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await semaphore.acquire()
    except TimeoutError:
        return False
