"""How a task's end is waited for, as a flow (`effects.py`): by its stream, and by asking where there is none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from beray.exceptions import APIError, ConflictError, ProtocolError, RequestTimeout, WaitTimeout
from beray.protocol import calls
from beray.protocol.effects import Conditions, Emit, Flow, Result, Send, Sleep, Tell
from beray.protocol.flows import repeated, request, value_in
from beray.protocol.responses import is_task, no_task
from beray.protocol.status import ENDED
from beray.protocol.streams import stream
from beray.protocol.types import Task

_NO_STREAM: Final = frozenset({404, 405, 406, 429, 501})
"""Statuses of a server that streams nothing, or not so much at once; a task that is gone is told by asking for it."""

_ANSWER_SECONDS: Final = 5.0
"""What a request about the task itself may take though the time is over: its state is told with no patience at all."""

_FIRST_POLL_SECONDS: Final = 1.0
_MOST_POLL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What a waiting program wants to be told.

    Attributes:
        on_event: Is called with each event.
        on_question: Is called with what the agent asks (`question_id`, `question`, `choices`); gives the answer, or
            None to leave it to somebody else.
        timeout: Seconds until `WaitTimeout`; None waits on.
    """

    on_event: Callable[[Any], Any] | None = None
    on_question: Callable[[Any], Any] | None = None
    timeout: float | None = None


def wait(task_id: int, conditions: Conditions, attention: Attention) -> Flow[Task]:
    """The task, once it has ended.

    Raises:
        WaitTimeout: It has not in the time given.
    """
    deadline = deadline_of(attention.timeout, conditions)
    task = yield from _task(task_id, conditions, deadline)
    if task["status"] in ENDED:
        return task
    question = task.get("question")
    if question is not None and attention.on_question is not None:
        yield from _answer(task_id, question, attention.on_question, conditions)
    last_seq: object = task.get("last_seq")
    after = last_seq if type(last_seq) is int and last_seq > 0 else 0
    return (yield from follow(task_id, conditions, attention, after=after, deadline=deadline))


def deadline_of(timeout: float | None, conditions: Conditions) -> float | None:
    """When `timeout` seconds from now are over.

    Raises:
        ValueError: It is negative, or no number.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more; got {timeout!r}")
    return conditions.clock() + timeout


def follow(
    task_id: int, conditions: Conditions, attention: Attention, *, after: int, deadline: float | None
) -> Flow[Task]:
    """Tell the events after `after` until the task has ended; the task then."""
    seen = after
    of_telling: BaseException | None = None

    def take(events: Sequence[Any]) -> Flow[None]:
        nonlocal seen, of_telling
        for event in events:
            seq = event.get("seq")
            seen = seq if type(seq) is int and seq > seen else seen
            try:
                yield from _tell(task_id, event, attention, conditions)
            except BaseException as error:
                of_telling = error
                raise

    polls = 0
    while True:
        try:
            yield from tapped(stream(task_id, conditions, after=seen, deadline=deadline), take)
        except APIError as refused:
            if refused is of_telling or refused.status_code not in _NO_STREAM:
                raise
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"Task {task_id} goes on. wait_for_task({task_id}) waits again, stop_task ends it.")
            raise
        task = yield from _task(task_id, conditions, deadline)
        if task["status"] in ENDED:
            return task
        yield Sleep(_poll_seconds(task_id, polls, conditions, deadline))
        polls += 1


def tapped(flow: Flow[Result], take: Callable[[Sequence[Any]], Flow[None]]) -> Flow[Result]:
    """`flow`, with what it emits going to `take` instead of to the caller."""
    try:
        effect = next(flow)
        while True:
            given = None
            try:
                if isinstance(effect, Emit):
                    yield from take(effect.items)
                else:
                    given = yield effect
            except GeneratorExit:
                flow.close()
                raise
            except BaseException as error:  # the flow decides: it may have to undo something
                effect = flow.throw(error)
            else:
                effect = flow.send(given)
    except StopIteration as end:
        return cast(Result, end.value)


def _tell(task_id: int, event: Any, attention: Attention, conditions: Conditions) -> Flow[None]:
    if attention.on_event is not None:
        yield Tell(attention.on_event, (event,))
    if event.get("type") == "input.requested" and attention.on_question is not None:
        yield from _answer(task_id, event, attention.on_question, conditions)


def _answer(task_id: int, question: Any, ask: Callable[[Any], Any], conditions: Conditions) -> Flow[None]:
    if not isinstance(question, dict) or not isinstance(question.get("question_id"), str):
        raise ProtocolError(f"Task {task_id} asks what is no question. Does base_url point at a BeRay server?")
    content = yield Tell(ask, (question,))
    if content is None:
        return
    try:
        yield from request(calls.send_message(task_id, content, question_id=question["question_id"]), conditions)
    except ConflictError:
        return  # somebody else has answered, or the agent goes on without an answer


def _task(task_id: int, conditions: Conditions, deadline: float | None) -> Flow[Task]:
    call = calls.get_task(task_id, events="tail:1")
    latest = None if deadline is None else max(deadline, conditions.clock() + _ANSWER_SECONDS)
    try:
        answer = yield from repeated(Send(call, deadline=conditions.deadline(latest)), conditions)
    except RequestTimeout as error:
        if deadline is not None and conditions.clock() >= deadline:
            raise WaitTimeout(task_id) from error
        raise
    task: Any = value_in(answer, call)
    if not is_task(task):
        raise no_task(answer)
    return cast(Task, task)


def _poll_seconds(task_id: int, polls: int, conditions: Conditions, deadline: float | None) -> float:
    delay = min(_FIRST_POLL_SECONDS * 2.0 ** min(polls, 8), _MOST_POLL_SECONDS)
    if deadline is None:
        return delay
    left = deadline - conditions.clock()
    if left <= 0:
        raise WaitTimeout(task_id)
    return min(delay, left)
