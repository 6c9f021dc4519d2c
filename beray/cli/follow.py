"""Following a task to its end: reconnect, time out, and what Ctrl-C and SIGTERM mean.

The first Ctrl-C leaves the task running and says how to come back; a second one within two seconds stops it.
`--stop-on-interrupt` stops at the first. SIGTERM only leaves. A cut connection is made again from the last event on.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from beray.cli.connection import App, Server
from beray.cli.exits import CliError, Exit, Terminated
from beray.cli.feed import Feed
from beray.cli.formats import seconds
from beray.cli.language import say
from beray.cli.program import program_name

SECOND_INTERRUPT_SECONDS: Final = 2.0
STOP_SECONDS: Final = 10.0
RECONNECT_FIRST_SECONDS: Final = 0.5
RECONNECT_MOST_SECONDS: Final = 5.0

JsonObject = Mapping[str, Any]


class TimedOut(BaseException):
    """`--timeout` has passed; raised in the middle of whatever waits, so nothing but the edge may swallow it."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what.

    Attributes:
        retry_seconds: For a lost connection, from its last sign of life.
        timeout_seconds: For the task's end; None: for ever.
        stops_on_timeout: The task is stopped then, not only left.
        can_interrupt: A second Ctrl-C soon after the first stops the task.
        stops_on_interrupt: The first Ctrl-C stops the task.
    """

    retry_seconds: float = 300.0
    timeout_seconds: float | None = None
    stops_on_timeout: bool = False
    can_interrupt: bool = True
    stops_on_interrupt: bool = False


def follow(
    app: App,
    server: Server,
    task_id: int,
    *,
    patience: Patience,
    show: Callable[[JsonObject], None],
    ask: Callable[[JsonObject, Feed], None] | None = None,
) -> Exit:
    """Show the task's events until it has ended, or the person at the terminal has enough.

    Args:
        app: The terminal.
        server: Where the task is.
        task_id: The task.
        patience: How long to wait for what.
        show: Gets each event.
        ask: Gets each question after it was shown, and what follows it, which it may take and show.

    Returns:
        How the task ended, or why it was left.
    """
    last: JsonObject | None = None
    try:
        with _deadline(patience.timeout_seconds), Feed(_events(app, server, task_id, patience.retry_seconds)) as feed:
            for event in feed:
                show(event)
                last = event
                if ask is not None and event.get("type") == "input.requested":
                    ask(event, feed)
    except TimedOut:
        return _timed_out(app, server, task_id, patience)
    except Terminated:
        _say_still_running(app, task_id, "follow.still_running")
        return Exit.TERMINATED
    except KeyboardInterrupt:
        return _interrupted(app, server, task_id, patience)
    if last is not None and last.get("type") == "task.finished":
        return exit_of(str(last.get("status")))
    with app.client_of(server) as client:  # a server with other events: the task itself knows
        return exit_of(client.get_task(task_id, events="none")["status"])


def exit_of(status: str) -> Exit:
    """What a task that has ended like this is for the shell."""
    return {"completed": Exit.OK, "stopped": Exit.TASK_STOPPED}.get(status, Exit.TASK_FAILED)


@contextmanager
def termination_as_exception() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives."""

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _deadline(timeout_seconds: float | None) -> Iterator[None]:
    """Raise `TimedOut` in this thread when the time is over, whatever it waits for."""
    if timeout_seconds is None:
        yield
        return

    def raise_timed_out(number: int, frame: FrameType | None) -> None:
        raise TimedOut

    previous = signal.signal(signal.SIGALRM, raise_timed_out)
    signal.setitimer(signal.ITIMER_REAL, max(timeout_seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _events(app: App, server: Server, task_id: int, retry_seconds: float) -> Iterator[JsonObject]:
    """The task's events, each once, through lost connections."""
    from beray.exceptions import APIError, NetworkError

    after, delay, lost_at = 0, RECONNECT_FIRST_SECONDS, None
    while True:
        try:
            with app.client_of(server, is_patient=False) as client:
                for event in client.stream_task_updates(task_id, after=after):
                    if lost_at is not None:
                        app.note(say("follow.reconnected"))
                    after, delay, lost_at = event.get("seq", after), RECONNECT_FIRST_SECONDS, None
                    yield event
                return
        except NetworkError as error:
            failure: APIError | NetworkError = error
        except APIError as error:
            if error.status_code not in {429, 502, 503, 504}:
                raise
            failure = error
        if lost_at is None:
            lost_at = time.monotonic()
            app.terminal.end_stream()
            app.terminal.progress(app.terminal.style("warn", f"↻ {say('follow.reconnecting')}"))
        _wait_to_reconnect(app, failure, lost_at=lost_at, delay=delay, retry_seconds=retry_seconds, task_id=task_id)
        delay = min(delay * 2, RECONNECT_MOST_SECONDS)


def _wait_to_reconnect(
    app: App, failure: Exception, *, lost_at: float, delay: float, retry_seconds: float, task_id: int
) -> None:
    lost_for = time.monotonic() - lost_at
    if lost_for + delay > retry_seconds:
        what = say("follow.lost", duration=seconds(lost_for), reason=str(failure))
        remedy = say("follow.lost.remedy", program=program_name(), id=task_id)
        raise CliError(what, remedy, Exit.NETWORK) from failure
    app.terminal.status(lambda: f"{say('follow.reconnecting')} {int(time.monotonic() - lost_at)} s")
    time.sleep(delay)


def _interrupted(app: App, server: Server, task_id: int, patience: Patience) -> Exit:
    """Leave the task, and stop it at a second Ctrl-C."""
    try:
        if not patience.can_interrupt:
            _say_still_running(app, task_id, "follow.still_running")
            return Exit.INTERRUPTED
        if not patience.stops_on_interrupt:
            _say_still_running(app, task_id, "follow.detached")
            time.sleep(SECOND_INTERRUPT_SECONDS)
            return Exit.INTERRUPTED
    except KeyboardInterrupt:
        pass
    except Terminated:
        return Exit.TERMINATED
    try:
        stop_and_wait(app, server, task_id)
    except (KeyboardInterrupt, Terminated):  # a third one: enough
        _say_still_running(app, task_id, "follow.still_running")
    return Exit.INTERRUPTED


def _timed_out(app: App, server: Server, task_id: int, patience: Patience) -> Exit:
    app.terminal.status(None)
    app.terminal.end_stream()
    what = "follow.timed_out_stops" if patience.stops_on_timeout else "follow.timed_out"
    app.terminal.progress(app.terminal.style("warn", say(what, duration=seconds(patience.timeout_seconds or 0))))
    if patience.stops_on_timeout:
        stop_and_wait(app, server, task_id)
    else:
        _say_still_running(app, task_id, "follow.still_running")
    return Exit.TIMEOUT


def stop_and_wait(app: App, server: Server, task_id: int) -> None:
    """Stop the task and wait, at most `STOP_SECONDS`, until nothing of it runs."""
    from beray.exceptions import ConflictError
    from beray.protocol.status import ENDED

    app.terminal.status(None)
    app.terminal.end_stream()
    app.note(say("follow.stopping", id=task_id))
    deadline = time.monotonic() + STOP_SECONDS
    with app.client_of(server, is_patient=False) as client:
        try:
            status = client.stop_task(task_id)["status"]
            while status not in ENDED and time.monotonic() < deadline:
                time.sleep(0.1)
                status = client.get_task(task_id)["status"]
        except ConflictError:  # it ended by itself first
            status = client.get_task(task_id)["status"]
    key = "follow.stopped" if status in ENDED else "follow.still_stopping"
    app.terminal.progress(f"{app.terminal.style('warn', '■')} {say(key, id=task_id, status=status)}")


def _say_still_running(app: App, task_id: int, key: str) -> None:
    app.terminal.status(None)
    app.terminal.end_stream()
    app.terminal.progress(f"{app.terminal.style('warn', '●')} {say(key, program=program_name(), id=task_id)}")
