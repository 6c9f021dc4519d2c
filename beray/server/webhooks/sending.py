"""One attempt to hand a message over. Imports the HTTP library.

By the same checks as the proxy's connections: looked up once, each address judged, connected to as judged, with no
redirect followed and nothing of this machine's environment used. Each attempt has a connection of its own.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from beray import __version__
from beray.protocol.responses import retry_after_seconds
from beray.server.agent.web.client import open_client
from beray.server.db.webhooks import Fault
from beray.server.sandbox.egress.dial import Dialer, Resolve, SystemResolver
from beray.server.sandbox.egress.limits import EgressLimits
from beray.server.sandbox.egress.request import Refusal
from beray.server.webhooks.reach import Reach, address_of, host_of

ATTEMPT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 1.0  # for the body of an answer whose head has said all that counts
ANSWER_BYTES: Final = 4096
READ_BYTES: Final = 256 << 10  # of a connection: interim answers (1xx) without end would keep a core busy
LOOKUP_THREADS: Final = 64  # a name that is not answered holds one for up to a minute, and each user may have two such
REFUSED_STATUS: Final = 403  # of a `Refusal`: an address that may not be called

log = logging.getLogger("beray.webhooks")


@dataclass(frozen=True)
class Answered:
    """What a receiver made of a message.

    Attributes:
        status: None: no answer came.
        fault: Why it has not taken the message; None: it has.
        asked_seconds: Its `Retry-After`.
    """

    status: int | None
    fault: Fault | None
    asked_seconds: float | None = None


class Sender:
    """Sends messages.

    Args:
        reach: Where they may go.
        resolve: Looks names up; default: as this machine is set up.
        tls: Which certificates are believed; default those of this machine.
    """

    def __init__(self, reach: Reach, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._reach = reach
        self._whole = SystemResolver(threads=LOOKUP_THREADS)
        self._listed = SystemResolver(is_whole=False)
        self._resolve = resolve
        self._tls = tls
        self._limits = EgressLimits(lookup_seconds=ATTEMPT_SECONDS, connect_seconds=ATTEMPT_SECONDS)

    def close(self) -> None:
        """Look nothing up any more."""
        self._whole.close()
        self._listed.close()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str], *, lookups: asyncio.Semaphore) -> Answered:
        """Post the body; what came of it.

        Args:
            url: Where to.
            body: What.
            headers: The signature's.
            lookups: Shared by all attempts of one user, so that names that are never found stop only their own.
        """
        if not self._reach.takes(url):  # the operator's list has changed since it was given
            return Answered(None, "forbidden")
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await self._post(url, body, headers, lookups)
        except (TimeoutError, httpx2.TimeoutException):
            return Answered(None, "timeout")
        except httpx2.HTTPError as error:
            return Answered(None, _fault_of(error))
        except Exception:  # what a receiver made us stumble over: raised, it would be sent again without end
            log.exception("a webhook could not be sent")
            return Answered(None, "unreachable")

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], lookups: asyncio.Semaphore) -> Answered:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        host = host_of(url)
        dialer = Dialer(self._limits, resolve=self._look_up, why_refused=self._reach.rule_for(host))
        sent = {"content-type": "application/json", "user-agent": f"BeRay-Webhooks/{__version__}", "accept": "*/*"}
        async with (
            open_client(
                dialer,
                most_body_bytes=2 * ANSWER_BYTES,  # reading is ended before
                timeout_seconds=ATTEMPT_SECONDS,
                headers={**sent, "connection": "close", **headers},
                tls=self._tls,
                lookups=lookups,
                takes_compressed=True,
                most_read_bytes=READ_BYTES,
            ) as client,
            client.stream("POST", url, content=body) as response,
        ):
            await _read_some(response)
            return _answered(response)

    async def _look_up(self, host: str) -> Sequence[str]:
        address = address_of(host.strip("[]"))
        if address is not None:
            return [str(address)]
        if self._resolve is not None:
            return await self._resolve(host)
        return await (self._listed if self._reach.lists(host) else self._whole)(host)


async def _read_some(response: httpx2.Response) -> None:
    """A receiver that is cut off while it answers may take that for a failure; what it says is nothing to us."""
    size = 0
    with contextlib.suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > ANSWER_BYTES:
                    return


def _answered(response: httpx2.Response) -> Answered:
    if response.is_success:
        return Answered(response.status_code, None)
    fault: Fault = "redirect" if 300 <= response.status_code < 400 else "status"
    return Answered(response.status_code, fault, retry_after_seconds(response.headers))


def _fault_of(error: Exception) -> Fault:
    for cause in _causes(error):
        if isinstance(cause, Refusal):
            return "forbidden" if cause.status == REFUSED_STATUS else "unreachable"
        if isinstance(cause, ssl.SSLError):
            return "tls"
    return "not_http" if isinstance(error, httpx2.RemoteProtocolError) else "unreachable"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it; the HTTP library hides some of that from tracebacks (`from None`)."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
