"""What is worth another attempt, and after how long. Pure: outcomes, times and chance come from outside.

| outcome                                      | repeated                                                       |
|----------------------------------------------|----------------------------------------------------------------|
| the request was never sent (refused connect) | always                                                         |
| 429; 503 with Retry-After                    | always: the server says that it did nothing                    |
| cut or timed out after sending; 408, 502,    | if that can't do it twice: idempotent call, or a key that the  |
| 504; 503 without Retry-After: a proxy that   | server is known to honour                                      |
| lost the server in the midst says that too   |                                                                |
| 409 `idempotency_in_progress`                | if the call has a key: the first attempt still runs            |
| TLS failure, any other answer                | never                                                          |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from beray.exceptions import APIError, NetworkError, TLSError
from beray.protocol.calls import Call

_UNKNOWN_WHETHER_DONE: Final = frozenset({408, 502, 503, 504})

Failure = APIError | NetworkError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently.

    Attributes:
        max_retries: Attempts after the first.
        first_delay_seconds: The wait before the first repetition, doubled for each further one, then cut by chance
            to between a half and the whole, so that many clients don't come back at once.
        max_delay_seconds: The doubling ends here.
        max_retry_after_seconds: A server that asks for more gets no further attempt; the caller gets the error.
        deadline_seconds: No attempt begins later than this after the first.
    """

    max_retries: int = 2
    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 8.0
    max_retry_after_seconds: float = 30.0
    deadline_seconds: float = 60.0

    def delay_seconds(
        self,
        retries: int,
        *,
        retry_after: float | None,
        elapsed_seconds: float,
        random: Callable[[], float],
    ) -> float | None:
        """The wait before the next attempt, or None if there shall be none.

        Args:
            retries: Repetitions made so far.
            retry_after: Seconds the server asked for.
            elapsed_seconds: Since the first attempt began.
            random: Gives numbers from 0 to 1.
        """
        if retries >= self.max_retries:
            return None
        if retry_after is not None:
            if retry_after > self.max_retry_after_seconds:
                return None
            delay = retry_after + random() * 0.1 * self.first_delay_seconds
        else:
            doublings = min(retries, 32)  # 2.0**1025 would be an error
            whole = min(self.first_delay_seconds * 2.0**doublings, self.max_delay_seconds)
            delay = whole * (0.5 + 0.5 * random())
        return delay if elapsed_seconds + delay <= self.deadline_seconds else None


def is_worth_repeating(call: Call[Any], failure: Failure, *, is_key_honoured: bool) -> bool:
    """Whether another attempt may help and can't do the call's work twice.

    Args:
        call: What was tried.
        failure: How it ended.
        is_key_honoured: The server has said `Idempotency-Supported: true`.
    """
    if not call.is_repeatable:
        return False
    can_repeat = call.is_idempotent or (call.has_key and is_key_honoured)
    if isinstance(failure, NetworkError):
        return not isinstance(failure, TLSError) and (can_repeat or not failure.was_sent)
    if failure.status_code == 429 or (failure.status_code == 503 and failure.retry_after is not None):
        return True
    if failure.status_code in _UNKNOWN_WHETHER_DONE:
        return can_repeat
    return call.has_key and failure.code == "idempotency_in_progress"
