"""How a call is made, and repeated where that is safe and may help, as a flow (`effects.py`)."""

import json
from typing import Any, cast

from beray.exceptions import APIError, NetworkError
from beray.protocol.calls import Call, Result
from beray.protocol.effects import Conditions, Flow, Renew, Send, Sleep, Tell
from beray.protocol.responses import Answer, error_of, name_of, value_of
from beray.protocol.retry import Failure, is_worth_repeating
from beray.protocol.watching import RequestInfo, ResponseInfo, Watch


def request(call: Call[Any], conditions: Conditions, *, is_streamed: bool = False) -> Flow[Answer]:
    """Make the call, repeated where that is safe and may help.

    Returns:
        An answer whose status is a success, or among `call.accepted`.

    Raises:
        APIError: The server refused.
        NetworkError: No whole answer came.
    """
    return (yield from repeated(Send(call, is_streamed, False, conditions.deadline()), conditions))


def value(call: Call[Result], conditions: Conditions) -> Flow[Result]:
    """As `request`: what the answer says.

    Raises:
        ProtocolError: It is no JSON.
    """
    return value_in((yield from repeated(Send(call, False, False, conditions.deadline()), conditions)), call)


def value_in(answer: Answer, call: Call[Result]) -> Result:
    """The answer's JSON as a caller gets it."""
    content = value_of(answer)
    return cast(Result, content if call.shown is None else call.shown(content))


def repeated(send: Send, conditions: Conditions) -> Flow[Answer]:
    """As `request`, for one `Send`."""
    call = send.call
    began = conditions.clock()
    retries = 0
    has_asked = False  # for another token: once for each call
    token = conditions.token  # before the question: another thread may just have got another one
    if conditions.renews_ahead and not call.is_about_login:
        yield Renew(token)
        has_asked = True
    while True:
        token = conditions.token
        if conditions.watch is None:
            outcome = _judged((yield send), call, conditions)
        else:
            outcome = yield from attempt(send, conditions, number=retries + 1)
        if isinstance(outcome, Answer):
            return outcome
        if retries and call.is_done_when_gone and isinstance(outcome, APIError) and outcome.status_code == 404:
            return _gone(call, conditions)
        if not has_asked and (yield from token_is_renewed(call, outcome, token)):
            has_asked = True
            continue
        if not is_worth_repeating(call, outcome, is_key_honoured=conditions.learned.is_key_honoured):
            raise outcome
        delay = conditions.policy.delay_seconds(
            retries,
            retry_after=retry_after(outcome),
            elapsed_seconds=conditions.clock() - began,
            random=conditions.random,
        )
        if delay is None or (send.deadline is not None and conditions.clock() + delay >= send.deadline):
            raise outcome
        yield Sleep(delay)
        retries += 1


def token_is_renewed(call: Call[Any], failure: Failure, token: str | None) -> Flow[bool]:
    """Whether the call failed for its token alone, and there is another one now."""
    is_refused = isinstance(failure, APIError) and failure.status_code == 401
    if not is_refused or call.is_about_login or not call.is_repeatable:
        return False
    return bool((yield Renew(token)))


def attempt(send: Send, conditions: Conditions, *, number: int = 1) -> Flow[Answer | Failure]:
    """One request: its answer if that is wanted, else what went wrong."""
    if conditions.watch is None:
        return _judged((yield send), send.call, conditions)
    return _judged((yield from _watched(send, conditions, conditions.watch, number)), send.call, conditions)


def _judged(outcome: Answer | NetworkError, call: Call[Any], conditions: Conditions) -> Answer | Failure:
    """The answer if it is wanted, else what went wrong."""
    if isinstance(outcome, NetworkError):
        return outcome
    supported = outcome.headers.get("Idempotency-Supported")
    if supported is not None and supported.lower() == "true":
        conditions.learned.is_key_honoured = True
    if 200 <= outcome.status < 300 or outcome.status in call.accepted:
        return outcome
    return error_of(outcome, secret=conditions.token)


def _watched(send: Send, conditions: Conditions, watch: Watch, number: int) -> Flow[Answer | NetworkError]:
    info = RequestInfo(method=send.call.method, url=conditions.base_url + send.call.target, attempt=number)
    for on_request in watch.on_request:
        yield Tell(on_request, (info,))
    began = conditions.clock()
    outcome: Answer | NetworkError = yield send
    answer = None if isinstance(outcome, NetworkError) else outcome
    told = ResponseInfo(
        request=info,
        status_code=None if answer is None else answer.status,
        request_id=None if answer is None else name_of(answer.headers.get("X-Request-ID")),
        elapsed_seconds=conditions.clock() - began,
        error=outcome if isinstance(outcome, NetworkError) else None,
    )
    for on_response in watch.on_response:
        yield Tell(on_response, (told,))
    return outcome


def _gone(call: Call[Any], conditions: Conditions) -> Answer:
    message = "Deleted." if (conditions.language or "").startswith("en") else "已删除。"
    return Answer(status=200, headers={}, body=json.dumps({"message": message}).encode(), method=call.method)


def retry_after(failure: Failure) -> float | None:
    """Seconds the server asked for."""
    return failure.retry_after if isinstance(failure, APIError) else None
