"""Look a name up once, check what it means, and connect to exactly that."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from beray.server.sandbox.egress.addresses import Address, why_refused
from beray.server.sandbox.egress.limits import EgressLimits
from beray.server.sandbox.egress.request import Refusal, Target

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host's addresses as text, best first.

Raises:
    OSError: There are none, or it can't be found out.
"""
WhyRefused = Callable[[Address], str | None]

_LOOKUP_THREADS = 8  # of their own: names that don't answer must not hold up the server's other work in threads
_ADDRESSES_TRIED = 4


class SystemResolver:
    """Asks as this machine is set up to (`getaddrinfo`).

    Args:
        is_whole: Names are whole, and no search domain of this machine is tried behind them.
        threads: Lookups at a time.
    """

    def __init__(self, *, is_whole: bool = True, threads: int = _LOOKUP_THREADS) -> None:
        self._suffix = "." if is_whole else ""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="beray-lookup")

    async def __call__(self, host: str) -> Sequence[str]:
        """See `Resolve`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host + self._suffix)

    def close(self) -> None:
        """Take no more; a lookup that runs can't be ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Dialer:
    """Connects to hosts by name.

    Args:
        resolve: Asked once for each connection.
        why_refused: Why nothing may be connected to an address; None if it may.
    """

    def __init__(self, limits: EgressLimits, *, resolve: Resolve, why_refused: WhyRefused = why_refused) -> None:
        self._limits = limits
        self._resolve = resolve
        self._why_refused = why_refused

    async def connect(self, target: Target, lookups: asyncio.Semaphore) -> socket.socket:
        """A non-blocking socket connected to the target; the caller closes it.

        Raises:
            Refusal: It may not, or can't, be had.
        """
        found = await self._look_up(target, lookups)
        if not found:
            raise Refusal(502, f"{target.host} has no address")
        try:
            addresses = [self._check(address, target) for address in found]
            return await _connect_to_any(addresses[:_ADDRESSES_TRIED], target.port, self._limits.connect_seconds)
        except TimeoutError as error:
            raise Refusal(504, f"{target} did not answer in {self._limits.connect_seconds:g} s") from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "no reason is known"  # asyncio's text is a longer one
            raise Refusal(502, f"{target} could not be connected to: {reason}") from error

    async def _look_up(self, target: Target, lookups: asyncio.Semaphore) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._limits.lookup_seconds):
                await lookups.acquire()
                resolving = asyncio.ensure_future(self._resolve(target.host))
                resolving.add_done_callback(partial(_give_back, lookups))  # what is given up goes on in its thread
                return await asyncio.shield(resolving)
        except TimeoutError as error:
            raise Refusal(504, f"{target.host} was not looked up in {self._limits.lookup_seconds:g} s") from error
        except (OSError, UnicodeError) as error:
            raise Refusal(502, f"{target.host} could not be looked up") from error

    def _check(self, text: str, target: Target) -> Address:
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise Refusal(403, f"{target.host} has an address that is none") from error
        reason = self._why_refused(address)
        if reason is not None:
            raise Refusal(403, f"{target.host} may not be reached: one of its addresses {reason}")
        return address


def _give_back(lookups: asyncio.Semaphore, done: "asyncio.Future[Sequence[str]]") -> None:
    lookups.release()
    _ = done.cancelled() or done.exception()  # nobody may ask any more


async def _connect_to_any(addresses: Sequence[Address], port: int, seconds: float) -> socket.socket:
    """To the first that answers. Each has its part of the time, so that a dead one leaves some to the next."""
    failure: OSError = TimeoutError()
    for address in addresses:
        try:
            async with asyncio.timeout(seconds / len(addresses)):
                return await _connect(address, port)
        except OSError as error:
            failure = error
    raise failure


async def _connect(address: Address, port: int) -> socket.socket:
    outside = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        outside.setblocking(False)
        await asyncio.get_running_loop().sock_connect(outside, (str(address), port))
    except BaseException:
        outside.close()
        raise
    return outside
