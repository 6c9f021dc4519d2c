"""How a task's stream is read, resumed and judged to be over, as a flow (`effects.py`).

When a stream is over: a BeRay server ends it, cleanly, when the last stored event is `task.finished`. Any other end
is a cut, and is resumed by Last-Event-ID. Two cases can't be told apart by the stream alone: nothing came and it
ended cleanly; then the task itself is asked. Events whose `id` is not their `seq` come from a server with another
contract: they are passed on, its clean end is believed, and a cut is an error, since resuming might repeat events.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from beray.exceptions import ConnectionFailed, NetworkError, ProtocolError, WaitTimeout
from beray.protocol import calls
from beray.protocol.effects import Conditions, Emit, Flow, Read, Send, Sleep
from beray.protocol.flows import attempt, repeated, retry_after, token_is_renewed
from beray.protocol.responses import Answer, parse_json, value_of
from beray.protocol.retry import Failure, RetryPolicy, is_worth_repeating
from beray.protocol.sse import EventStreamDecoder, ServerSentEvent
from beray.protocol.status import ENDED, STATUSES
from beray.protocol.types import JsonObject

RECONNECTS: Final = RetryPolicy(
    max_retries=10,  # in a row without any sign of life: about 70 s, enough for a server's restart
    first_delay_seconds=1.0,
    max_delay_seconds=10.0,
    deadline_seconds=float("inf"),
)
"""How a cut stream is resumed; the server's `retry:` replaces the first delay."""

_MAX_FIRST_RECONNECT_SECONDS = 10.0
_MIN_FIRST_RECONNECT_SECONDS = 0.1  # a server that asks for less would be asked again and again without a pause


def stream(task_id: int, conditions: Conditions, *, after: int = 0, deadline: float | None = None) -> Flow[None]:
    """Emit the task's events after `after`, resuming through cuts, until the task has ended.

    Args:
        task_id: The task.
        conditions: The client's.
        after: Start after this `seq`.
        deadline: When to give up by `WaitTimeout`, by the clock of `conditions`.

    Raises:
        APIError: The server refused the stream; at once for the first connection.
        NetworkError: It could not be reached again, or was cut where it can't be resumed.
        WaitTimeout: The deadline has passed.
        ProtocolError: The answer is no event stream, an event is too large, or some are missing.
    """
    if after < 0:
        raise ValueError(f"after must be 0 or more; got {after}")
    return _timed(task_id, conditions, after=after, deadline=deadline)


def _timed(task_id: int, conditions: Conditions, *, after: int, deadline: float | None) -> Flow[None]:
    try:
        yield from _stream(task_id, conditions, after=after, deadline=deadline)
    except NetworkError as error:
        if deadline is not None and conditions.clock() >= deadline:
            raise WaitTimeout(task_id) from error
        raise


def _stream(task_id: int, conditions: Conditions, *, after: int, deadline: float | None) -> Flow[None]:
    cursor = _Cursor(task_id=task_id, last_seq=after, deadline=deadline)
    answer = yield from repeated(cursor.send(conditions.deadline(deadline)), conditions)
    while True:
        cut = yield from _read_events(answer, cursor, conditions)
        if cut is None and (cursor.is_at_end or not cursor.can_resume):
            return
        if cut is None and not cursor.has_received and (yield from _has_task_ended(cursor, conditions)):
            return
        if not cursor.can_resume or conditions.policy.max_retries == 0:
            raise cut or _ended_early(task_id)
        answer = yield from _reconnect(cursor, conditions, cut or _ended_early(task_id))


@dataclass(slots=True, kw_only=True)
class _Cursor:
    """Where the caller is in the task's log, and what the last connection showed."""

    task_id: int
    last_seq: int
    is_at_end: bool = False
    """The last event was a `task.finished`."""
    has_numbered: bool = False
    has_emitted: bool = False
    has_received: bool = False
    """The last connection brought an event."""
    failures: int = 0
    """Attempts in a row that brought neither a new event nor a heartbeat."""
    policy: RetryPolicy = field(default=RECONNECTS)
    deadline: float | None = None
    gap: ProtocolError | None = None
    """What to say of events that are missing, once those before them have been emitted."""

    @property
    def can_resume(self) -> bool:
        """Whether a further connection can't repeat what was emitted."""
        return self.has_numbered or not self.has_emitted

    def send(self, deadline: float | None) -> Send:
        """The request for what comes next, whose answer begins by `deadline`."""
        last_event_id = str(self.last_seq) if self.last_seq else ""
        call = calls.stream_task(self.task_id, last_event_id=last_event_id)
        return Send(call, is_streamed=True, is_event_stream=True, deadline=deadline)

    def take(self, event: ServerSentEvent) -> JsonObject | None:
        """What the caller gets of `event`; None for a repeated or empty one."""
        content = content_of(event)
        if content is None:
            return None
        seq = content.get("seq")
        if type(seq) is int and event.raw_id == b"%d" % seq:
            if seq <= self.last_seq:
                return None
            if seq != self.last_seq + 1:
                self.gap = self.gap or _gap(self.task_id, self.last_seq, seq)
                return None
            self.last_seq = seq
            self.has_numbered = True
            self.is_at_end = content.get("type") == "task.finished"
        self.has_emitted = True
        return content


def content_of(event: ServerSentEvent) -> JsonObject | None:
    """The event's JSON object.

    Anything else, which a BeRay server never sends, becomes `{"type": <event type>, "data": <JSON value or text>}`;
    an event with blank data is None.
    """
    try:
        content = parse_json(event.raw_data)
    except (ValueError, RecursionError):
        content = _content_of_text(event.data)
        if content is None:
            return None
    return content if isinstance(content, dict) else {"type": event.type, "data": content}


def _content_of_text(text: str) -> Any:
    """The text's JSON value, where it was but no UTF-8; else itself; None if it is blank."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text if text.strip() else None


def _read_events(answer: Answer, cursor: _Cursor, conditions: Conditions) -> Flow[NetworkError | None]:
    """Emit what one connection brings; None at its clean end, else what cut it."""
    cursor.has_received = False
    if answer.status == 204:
        return None
    _check_is_event_stream(answer)
    decoder = EventStreamDecoder(last_event_id=str(cursor.last_seq) if cursor.last_seq else "")
    while True:
        chunk = yield Read(cursor.deadline)
        if isinstance(chunk, NetworkError):
            return chunk
        if not chunk:
            return None
        received = decoder.feed(chunk)
        if received:
            cursor.has_received = True
        if decoder.retry_ms is not None:
            seconds = max(decoder.retry_ms / 1000, _MIN_FIRST_RECONNECT_SECONDS)
            seconds = min(seconds, _MAX_FIRST_RECONNECT_SECONDS)
            cursor.policy = replace(RECONNECTS, first_delay_seconds=seconds)
        events = [content for event in received if (content := cursor.take(event)) is not None]
        if events or decoder.comments:
            cursor.failures = 0
        if events:
            yield Emit(events)
        if cursor.gap is not None:
            raise cursor.gap
        if cursor.deadline is not None and not cursor.is_at_end and conditions.clock() >= cursor.deadline:
            raise WaitTimeout(cursor.task_id)  # where bytes always wait, no read ever takes too long


def _check_is_event_stream(answer: Answer) -> None:
    kind = answer.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        message = (
            f"{answer.method} {answer.url} answered {answer.status} with {kind or 'no Content-Type'}, "
            "not with text/event-stream. Does base_url point at a BeRay server?"
        )
        raise ProtocolError(message)


def _has_task_ended(cursor: _Cursor, conditions: Conditions) -> Flow[bool]:
    """Ask the task whether more is to come; while it can't be asked, more may come."""
    send = Send(calls.get_task(cursor.task_id, events="none"), deadline=cursor.deadline)
    outcome = yield from attempt(send, conditions)
    if not isinstance(outcome, Answer):
        return False  # the reconnect meets the same and knows what to do
    task = value_of(outcome)
    status = task.get("status") if isinstance(task, dict) else None
    if not isinstance(status, str) or status not in STATUSES:
        return True  # another contract: its clean end is believed
    last_seq = task.get("last_seq")
    has_more = isinstance(last_seq, int) and last_seq > cursor.last_seq
    return status in ENDED and not has_more


def _reconnect(cursor: _Cursor, conditions: Conditions, failure: Failure) -> Flow[Answer]:
    """Open the stream again after the last event, with growing patience; `failure` is why."""
    send = cursor.send(cursor.deadline)
    token = conditions.token
    has_renewed = False  # a server that takes no token at all would be given one after the other
    while True:
        if not has_renewed and (yield from token_is_renewed(send.call, failure, token)):
            has_renewed = True
        else:
            yield Sleep(_patience(cursor, conditions, failure))
        cursor.failures += 1
        token = conditions.token
        outcome = yield from attempt(send, conditions)
        if isinstance(outcome, Answer):
            return outcome
        failure = outcome


def _patience(cursor: _Cursor, conditions: Conditions, failure: Failure) -> float:
    """Seconds to wait before the next connection; raises `failure` if there shall be none."""
    if not is_worth_repeating(calls.stream_task(cursor.task_id, last_event_id=""), failure, is_key_honoured=False):
        raise failure
    delay = cursor.policy.delay_seconds(
        cursor.failures, retry_after=retry_after(failure), elapsed_seconds=0.0, random=conditions.random
    )
    if delay is None:
        raise failure
    if cursor.deadline is None:
        return delay
    left = cursor.deadline - conditions.clock()
    if left <= 0:
        raise failure
    return min(delay, left)


def _gap(task_id: int, last_seq: int, seq: int) -> ProtocolError:
    return ProtocolError(
        f"Event {seq} of task {task_id} came after event {last_seq}; those between are missing. "
        f"stream_task_updates({task_id}, after={last_seq}) asks for them again."
    )


def _ended_early(task_id: int) -> ConnectionFailed:
    return ConnectionFailed(f"The stream of task {task_id} ended before the task did.")
