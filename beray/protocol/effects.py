"""What a flow asks of its driver, and what the flows of one client share.

A flow is a generator: it yields an effect, its driver does it and sends the result back. So retrying, resuming, waiting
and downloading are written once, and a driver (`drivers/on_requests.py`, `drivers/on_aiohttp.py`) is small.

    Send(call)         the Answer, or the NetworkError that came instead (a value: the flow decides what it means)
    Sleep(seconds)     None
    Read()             the next bytes of the stream opened last, b"" at its clean end, or a NetworkError if it was cut
                       or the time was over
    Emit(items)        None, once the caller has taken them
    Do(work)           what `work()` gave, or its exception: it may block (files, hashing), so never on an event loop
    Tell(function, *)  what the user's own function gave; the asynchronous driver awaits what can be awaited
    Renew(token)       whether there is a token now that is not `token`: the user's hook is asked for one

What an effect raises is raised in the flow. A flow holds no connection: the driver closes the stream it opened when the
flow ends or is closed, or opens the next one. A streamed answer that the flow returns is the caller's to close.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from beray.protocol.access import Access
from beray.protocol.calls import Call
from beray.protocol.retry import RetryPolicy
from beray.protocol.watching import Watch


class Send(NamedTuple):
    """Make the request. A streamed answer's body stays unread, unless the status is no success.

    Attributes:
        call: The request.
        is_streamed: Leave the body for `Read`.
        is_event_stream: Silence is judged by the heartbeat.
        deadline: When the whole answer (of a streamed one the headers) must be there, by the clock of `Conditions`.
    """

    call: Call[Any]
    is_streamed: bool = False
    is_event_stream: bool = False
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read some bytes of the stream opened last, until `deadline` at most."""

    deadline: float | None = None


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


@dataclass(frozen=True, slots=True)
class Renew:
    """Get another token in place of `token`, which the server no longer takes."""

    token: str | None


Effect = Send | Sleep | Read | Emit | Do | Tell | Renew

Result = TypeVar("Result")
Flow = Generator[Effect, Any, Result]


@dataclass(slots=True)
class Learned:
    """What answers have told about the server; the copies that `with_options` makes share it.

    Attributes:
        is_key_honoured: It has said `Idempotency-Supported: true`.
    """

    is_key_honoured: bool = False


@dataclass(slots=True, kw_only=True)
class Conditions:
    """What flows of one client share.

    Attributes:
        policy: How often a call is repeated; with no retries at all, streams are not resumed either.
        clock: Seconds that only rise.
        random: Gives numbers from 0 to 1.
        language: What the client asks for as `Accept-Language`; None is Chinese.
        learned: What is known about the server; flows note it here.
        base_url: The server's root, for what is said about a request.
        access: The token and its end.
        watch: Who is told of each request.
        deadline_seconds: What a whole call may take, its repetitions included; None: only its repetitions have an end.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    random: Callable[[], float]
    language: str | None = None
    learned: Learned = field(default_factory=Learned)
    base_url: str = ""
    access: Access | None = None
    watch: Watch | None = None
    deadline_seconds: float | None = None

    @property
    def token(self) -> str | None:
        """The token that calls carry now."""
        return None if self.access is None else self.access.token

    @property
    def renews_ahead(self) -> bool:
        """Whether the token has ended, as is known without asking the server, and another can be had."""
        return self.access is not None and self.access.renew is not None and self.access.is_expired

    def deadline(self, latest: float | None = None) -> float | None:
        """When a call that begins now must have ended: at `latest` if that is sooner."""
        if self.deadline_seconds is None:
            return latest
        own = self.clock() + self.deadline_seconds
        return own if latest is None else min(own, latest)
