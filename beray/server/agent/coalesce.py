"""Many small pieces of text become few events: an event is a durable commit, so a model's every token is not one."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

Key = TypeVar("Key")

WAIT_SECONDS = 0.03  # a reader can't tell 30 ms from at once
GATHER_SECONDS = 0.005  # the parts of one line, which programs often write one by one, come together in this time


class Coalescer(Generic[Key]):
    """Gathers pieces of text and hands them on in groups: the first after 5 ms, then one every 30 ms, or when full.

    Use it as an async context manager. Leaving it normally hands on what is left; leaving it by an exception drops
    that, but lets a group arrive that is on its way, so that it is known what was handed on; being cancelled waits for
    nothing.

    Args:
        hand_on: Given the group: pieces in order, neighbours of the same key joined.
        most_characters: A group this large doesn't wait; `put` waits while this much is on its way.
    """

    def __init__(self, hand_on: Callable[[list[tuple[Key, str]]], Awaitable[None]], *, most_characters: int) -> None:
        self._hand_on = hand_on
        self._most_characters = most_characters
        self._pieces: list[tuple[Key, list[str]]] = []
        self._size = 0
        self._filled = asyncio.Event()
        self._full = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_ending = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Coalescer[Key]":
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._is_ending = True
        self._filled.set()
        self._full.set()
        if error is None:
            await self._task
            return
        self._pieces = []
        if not isinstance(error, Exception):
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def put(self, key: Key, text: str) -> None:
        """Add a piece.

        Raises:
            Exception: What `hand_on` raised for an earlier group.
        """
        assert self._task is not None
        if self._task.done():
            self._task.result()
        if not text:
            return
        if self._pieces and self._pieces[-1][0] == key:
            self._pieces[-1][1].append(text)
        else:
            self._pieces.append((key, [text]))
        self._size += len(text)
        self._filled.set()
        if self._size >= self._most_characters:
            self._full.set()
            self._taken.clear()
            await self._until_taken(self._task)

    async def _until_taken(self, task: "asyncio.Task[None]") -> None:
        """Wait until the worker has taken what waits, or has failed."""
        taken = asyncio.create_task(self._taken.wait())
        try:
            await asyncio.wait({taken, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
        if task.done():
            task.result()

    async def _work(self) -> None:
        while True:
            await self._filled.wait()
            await self._pause(GATHER_SECONDS)
            group = self._take()
            if group:
                await self._hand_on(group)
            elif self._is_ending:
                return
            await self._pause(WAIT_SECONDS)

    def _take(self) -> list[tuple[Key, str]]:
        group = [(key, "".join(parts)) for key, parts in self._pieces]
        self._pieces = []
        self._size = 0
        if not self._is_ending:
            self._filled.clear()
            self._full.clear()
        self._taken.set()
        return group

    async def _pause(self, seconds: float) -> None:
        """Let pieces gather for a moment, unless there are many already or no more will come."""
        try:
            async with asyncio.timeout(seconds):  # before Python 3.12 `wait_for` can lose a cancellation to a wake
                await self._full.wait()
        except TimeoutError:
            return
