"""A task's events, which can be waited for together with what is typed."""

import select
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

JsonObject = Mapping[str, Any]


class Feed:
    """Gives events one after the other, each once; what goes wrong with them is raised where they are taken.

    The caller waits for them itself, so that signals reach it. Only while a person is asked (`comes_first`) a thread
    waits for the next one in its place; whoever takes it later waits for that thread.
    """

    def __init__(self, events: Iterator[JsonObject]) -> None:
        self._events = events
        self._coming: _Coming | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._coming is not None:
            self._coming.close()

    def __iter__(self) -> Iterator[JsonObject]:
        while (event := self.take()) is not None:
            yield event

    def take(self) -> JsonObject | None:
        """Wait for the next event; None at the end."""
        if self._coming is None:
            return next(self._events, None)
        coming, self._coming = self._coming, None
        coming.close()
        return coming.result.result()

    def comes_first(self, descriptor: int) -> bool:
        """Wait until there is an event (or the end), or something to read from `descriptor`: is it the event?"""
        self._coming = self._coming or _Coming(self._events)
        waited_for: list[socket.socket | int] = [self._coming.is_there, descriptor]
        ready, _, _ = select.select(waited_for, [], [])
        return self._coming.is_there in ready

    def peek(self) -> JsonObject | None:
        """The event that `comes_first` has seen; None at the end."""
        assert self._coming is not None, "comes_first has answered True"
        return self._coming.result.result()


class _Coming:
    """The next event, waited for in a thread of its own.

    Attributes:
        result: The event, or what went wrong.
        is_there: Can be read from once there is a result.
    """

    def __init__(self, events: Iterator[JsonObject]) -> None:
        self.result: Future[JsonObject | None] = Future()
        self.is_there, self._bell = socket.socketpair()
        # a daemon: who is left by Ctrl-C does not wait for the next event
        threading.Thread(target=self._wait, args=[events], name="beray-events", daemon=True).start()

    def close(self) -> None:
        """Wait no longer by `is_there`."""
        self.is_there.close()

    def _wait(self, events: Iterator[JsonObject]) -> None:
        with self._bell:  # its end is what can be read
            try:
                self.result.set_result(next(events, None))
            except Exception as error:  # raised again where the event is taken
                self.result.set_exception(error)
