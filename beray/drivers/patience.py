"""How long calls of an event loop wait for their answers, watched by one timer for all of them."""

import asyncio
from types import TracebackType
from typing import Final, Self

_LOOK_SECONDS: Final = 0.5  # an answer that is not there is told so much later at most
_BUSY_SECONDS: Final = 0.005  # an event loop at work looks at its sockets far more often


class Wait:
    """How long a call still waits for the next piece of its answer; beyond that, `TimeoutError`.

    It is what `asyncio.timeout` does, without a timer of its own: `Patience` calls `end`.
    """

    __slots__ = ("_cancelling", "_is_over", "_patience", "_seconds", "_task", "due")

    def __init__(self, patience: "Patience", seconds: float) -> None:
        self._patience = patience
        self._seconds = seconds
        self._is_over = False
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self.due = patience.time() + seconds

    def begin_again(self) -> None:
        """A piece has come, or gone."""
        self.due = self._patience.time() + self._seconds

    def end(self) -> None:
        """The time is over."""
        self._is_over = True
        self._task.cancel()

    def __enter__(self) -> Self:
        self._patience.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._patience.remove(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
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
        self._waits: set[Wait] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._ended_at = self.time()

    def add(self, wait: Wait) -> None:
        """Watch over a call."""
        self._waits.add(wait)
        if self._next_look is None:
            self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look)

    def remove(self, wait: Wait) -> None:
        """The call is over."""
        self._waits.discard(wait)
        self._ended_at = self.time()

    @property
    def is_busy(self) -> bool:
        """Whether a call has ended within the last moments."""
        return self.time() - self._ended_at < _BUSY_SECONDS

    def _look(self) -> None:
        now = self.time()
        for wait in [wait for wait in self._waits if wait.due <= now]:
            self._waits.discard(wait)
            wait.end()
        self._next_look = self._loop.call_later(_LOOK_SECONDS, self._look) if self._waits else None
