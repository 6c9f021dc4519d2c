"""What a flow asks of its driver, and what the flows of one client share.

A flow is a generator: it yields an effect, its driver does it and sends the result back. So retrying, resuming, waiting
and downloading are written once, and a driver (`driver.py` on requests, `async_driver.py` on aiohttp) is small.

    Send(call)         the Answer, or the NetworkError that came instead (a value: the flow decides what it means)
    Sleep(seconds)     None
    Read()             the next bytes of the stream opened last, b"" at its clean end, or a NetworkError if it was cut
    Emit(items)        None, once the caller has taken them
    Do(work)           what `work()` gave, or its exception: it may block (files, hashing), so never on an event loop
    Tell(function, *)  what the user's own function gave; the asynchronous driver awaits what can be awaited

A flow holds no connection. The driver closes what it opened when a flow ends, is closed, or opens the next stream.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from beray.protocol.calls import Call
from beray.protocol.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Send:
    """Make the request. A streamed answer's body stays unread, unless the status is no success."""

    call: Call[Any]
    is_streamed: bool = False
    is_event_stream: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read some bytes of the stream opened last."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand the items to the caller, who takes them one by one."""

    items: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Do:
    """Do blocking work of this machine: read, write, hash."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """Call a function of the user's: a callback."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


Effect = Send | Sleep | Read | Emit | Do | Tell

Result = TypeVar("Result")
Flow = Generator[Effect, Any, Result]


@dataclass(slots=True, kw_only=True)
class Conditions:
    """What flows of one client share.

    Attributes:
        policy: How often a call is repeated; with no retries at all, streams are not resumed either.
        clock: Seconds that only rise.
        random: Gives numbers from 0 to 1.
        language: What the client asks for as `Accept-Language`; None is Chinese.
        is_key_honoured: Whether the server has ever said `Idempotency-Supported: true`; flows note it here.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    random: Callable[[], float]
    language: str | None = None
    is_key_honoured: bool = False
