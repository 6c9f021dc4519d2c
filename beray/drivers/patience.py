"""How long calls of an event loop wait for their answers, watched by one timer for all of them."""

import asyncio
from types import TracebackType
from typing import Any, Final, Self

_LOOK_SECONDS: Final = 0.5  # an answer that is not there is told so much later at most
_BUSY_SECONDS: Final = 0.005  # an event loop at work looks at its sockets far more often


class Wait:
    """How long a call still waits for the next piece of its answer; beyond that, `TimeoutError`.

    It is what `asyncio.timeout` does, without a timer of its own: `Patience` calls `end`.
    """

    __slots__ = ("_cancelling", "_is_over", "_patience", "_seconds", "due", "task")

    def __init__(self, patience: "Patience", *, connect_seconds: float, seconds: float) -> None:
        self._patience = patience
        self._seconds = seconds
        self._is_over = False
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self.task = task
        self._cancelling = task.cancelling()
        self.due = patience.time() + connect_seconds + seconds

    def begin_again(self) -> None:
        """A piece has come, or gone."""
        self.due = self._patience.time() + self._seconds

    def end(self) -> None:
        """The time is over."""
        self._is_over = True
        self.task.cancel()

    def __enter__(self) -> Self:
        self._patience.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._patience.remove(self)
        if self._is_over and self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class Patience:
    """Ends calls whose answer's head, or next piece, is not there in time.

    aiohttp waits for each byte of a head anew, passes over as many interim answers (1xx) as come, and waits for ever
    where a peer breaks the protocol after the last chunk. A timer for each call would cost a tenth of it, so one for
    all of an event loop looks now and then.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._waits: dict[asyncio.Task[Any], Wait] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self._ended_at = self.time()

    def add(self, wait: Wait) -> None:
        """Watch over a call."""
        self._waits[wait.task] = wait
        if self._next_look is None:
            self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look)

    def remove(self, wait: Wait) -> None:
        """The call is over."""
        self._waits.pop(wait.task, None)
        self._ended_at = self.time()

    def connected(self) -> None:
        """This task's call has its connection: what is left is the silence."""
        task = asyncio.current_task()
        if task is not None and task in self._waits:
            self._waits[task].begin_again()

    @property
    def is_busy(self) -> bool:
        """Whether a call has ended within the last moments."""
        return self.time() - self._ended_at < _BUSY_SECONDS

    def _look(self) -> None:
        now = self.time()
        for wait in [wait for wait in self._waits.values() if wait.due <= now]:
            del self._waits[wait.task]
            wait.end()
        self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look) if self._waits else None
