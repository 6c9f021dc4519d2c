"""One command's way out: takes its listener, accepts its connections, carries or refuses them, and logs each."""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
from collections import Counter
from dataclasses import dataclass, field

from beray.server.sandbox.egress import hello
from beray.server.sandbox.egress.allowlist import AllowList
from beray.server.sandbox.egress.dial import Dialer
from beray.server.sandbox.egress.limits import EgressLimits
from beray.server.sandbox.egress.request import (
    ESTABLISHED,
    HEAD_BYTES,
    Refusal,
    Target,
    check_allowed,
    parse_connect,
    refusal_answer,
    split_head,
)
from beray.server.sandbox.egress.tunnel import Tunnel

logger = logging.getLogger(__name__)

_ACCEPT_PAUSE_SECONDS = 1.0  # after an accept() that failed: the server may be out of descriptors
_MESSAGE_BYTES = 64


@dataclass(frozen=True)
class Carrier:
    """What all doors share."""

    allowed: AllowList
    dialer: Dialer
    limits: EgressLimits
    connections: asyncio.Semaphore


class Quota:
    """What all doors of one task share."""

    def __init__(self, limits: EgressLimits) -> None:
        self.connections = asyncio.Semaphore(limits.task_connections)
        self.lookups = asyncio.Semaphore(limits.task_lookups)


@dataclass
class _Visit:
    """One connection, for the log."""

    target: Target | None = None
    verdict: str = "failed"
    reason: str = ""
    tunnel: Tunnel | None = None


@dataclass(eq=False)
class Door:
    """The way out of one command, from its start to its end.

    Attributes:
        task_id: Whose connections these are.
    """

    carrier: Carrier
    quota: Quota
    task_id: int
    _seen: "Counter[str]" = field(default_factory=Counter)

    def open(self) -> int:
        """Begin to wait for the command's listener; returns the socket over which it comes, the caller's to close."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._work = asyncio.create_task(self._run(ours))
        self._work.add_done_callback(lambda _: ours.close())  # also if it is shut before its first step
        return theirs.detach()

    def shut(self) -> None:
        """Cut every connection."""
        self._work.cancel()

    async def ended(self) -> None:
        """Wait until nothing of it is left."""
        await asyncio.wait([self._work])

    async def _run(self, control: socket.socket) -> None:
        try:
            listener = await _receive_listener(control)
            control.close()
            if listener is None:  # the command could not be started, and it is told elsewhere
                return
            with listener:
                async with asyncio.TaskGroup() as connections:
                    while True:
                        await self._admit(await self._accept(listener), connections)
        except Exception:  # the edge of this work: nobody else would hear of it
            logger.exception("the way out of a command failed", extra={"task_id": self.task_id})
        finally:
            self._log_rest()

    async def _accept(self, listener: socket.socket) -> socket.socket:
        while True:
            await _readable(listener)
            try:
                inside, _ = listener.accept()
            except BlockingIOError:  # it has gone again
                continue
            except OSError as error:
                logger.warning("a command's connection could not be accepted", extra={"reason": error.strerror})
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            inside.setblocking(False)
            return inside

    async def _admit(self, inside: socket.socket, connections: asyncio.TaskGroup) -> None:
        """Begin to serve a connection when there is room; until then no further one is accepted."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(inside)
            for places in (self.quota.connections, self.carrier.connections):
                await places.acquire()
                undo.callback(places.release)
            work = connections.create_task(self._serve(inside))
            leave = undo.pop_all().close  # as a callback: a task cancelled before its first step runs no `finally`
            work.add_done_callback(lambda _: leave())

    async def _serve(self, inside: socket.socket) -> None:
        visit = _Visit()
        try:
            await self._attend(inside, visit)
        except TimeoutError:
            visit.reason = "cut, for it was idle or open too long"
        except OSError as error:
            visit.reason = visit.reason or error.strerror or str(error)
        except Exception:  # the edge of a connection: others must go on
            logger.exception("a command's connection failed", extra={"task_id": self.task_id})
        finally:
            self._log(visit)
        if visit.verdict != "carried":
            await self._linger(inside)

    async def _attend(self, inside: socket.socket, visit: _Visit) -> None:
        try:
            visit.target, first = await self._read_request(inside)
            check_allowed(visit.target, self.carrier.allowed)
            outside = await self.carrier.dialer.connect(visit.target, self.quota.lookups)
        except Refusal as refusal:
            visit.verdict = "failed" if refusal.is_failure else "refused"
            visit.reason = str(refusal)
            await _end_with(inside, refusal_answer(refusal))
            return
        with outside:
            visit.verdict = "carried"
            visit.tunnel = Tunnel(inside, outside, self.carrier.limits)
            await asyncio.get_running_loop().sock_sendall(inside, ESTABLISHED)
            try:
                await visit.tunnel.run(first, functools.partial(hello.is_for, visit.target))
            except Refusal as refusal:
                visit.verdict, visit.reason = "refused", str(refusal)
                await _end_with(inside, hello.REFUSED_ALERT)

    async def _read_request(self, inside: socket.socket) -> tuple[Target, bytes]:
        loop = asyncio.get_running_loop()
        received = b""
        try:
            async with asyncio.timeout(self.carrier.limits.head_seconds):
                while (parts := split_head(received)) is None:
                    chunk = await loop.sock_recv(inside, HEAD_BYTES)
                    if not chunk:
                        raise Refusal(400, "The request is not whole")
                    received += chunk
        except TimeoutError as error:
            raise Refusal(408, "The request did not come in time") from error
        return parse_connect(parts[0]), parts[1]

    async def _linger(self, inside: socket.socket) -> None:
        """Keep the place of a connection that came to nothing, however it ended, so that they can't be many."""
        await asyncio.sleep(self.carrier.limits.refusal_pause_seconds)
        with contextlib.suppress(OSError):  # what is unread at the close would take the answer with it
            inside.recv(HEAD_BYTES)

    def _log(self, visit: _Visit) -> None:
        self._seen[visit.verdict] += 1
        if self._seen.total() > self.carrier.limits.log_lines:
            return
        logger.info(
            "a command's connection ended",
            extra={
                "task_id": self.task_id,
                "host": visit.target.host if visit.target else None,
                "port": visit.target.port if visit.target else None,
                "verdict": visit.verdict,
                "reason": visit.reason,
                "sent_bytes": visit.tunnel.sent if visit.tunnel else 0,
                "received_bytes": visit.tunnel.received if visit.tunnel else 0,
            },
        )

    def _log_rest(self) -> None:
        if self._seen.total() > self.carrier.limits.log_lines:
            logger.info("more connections of a command than are logged", extra={"task_id": self.task_id, **self._seen})


async def _receive_listener(control: socket.socket) -> socket.socket | None:
    """The listener that comes over the control socket; None when the other end was closed before."""
    await _readable(control)
    _, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    return _checked_listener(fds[0]) if fds else None


def _checked_listener(fd: int) -> socket.socket:
    """Only a listening TCP socket is accepted on: whatever else it were, it would not be what we made."""
    try:
        listener = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
    is_tcp = listener.family == socket.AF_INET and listener.type == socket.SOCK_STREAM
    if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(errno.EINVAL, "what came is no listener")
    listener.setblocking(False)
    return listener


async def _end_with(inside: socket.socket, answer: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(inside, answer)
    inside.shutdown(socket.SHUT_WR)


async def _readable(source: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(source, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(source)
