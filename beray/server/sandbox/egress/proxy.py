"""The proxy of one server: opens the way out of each command, and shuts all of them."""

import asyncio
import weakref

from beray.server.sandbox.egress.addresses import why_refused
from beray.server.sandbox.egress.allowlist import AllowList
from beray.server.sandbox.egress.dial import Dialer, Resolve, SystemResolver, WhyRefused
from beray.server.sandbox.egress.door import Carrier, Door, Quota
from beray.server.sandbox.egress.limits import EgressLimits

_LIMITS = EgressLimits()


class Egress:
    """The way out of all commands of one server. Used from one event loop.

    Args:
        allowed: Where connections may go.
        resolve: Default: as this machine does.
        why_refused: Why nothing is connected to an address, whatever name leads to it; None if it may be.
    """

    def __init__(
        self,
        allowed: AllowList,
        *,
        resolve: Resolve | None = None,
        why_refused: WhyRefused = why_refused,
        limits: EgressLimits = _LIMITS,
    ) -> None:
        self._resolver = SystemResolver()
        dialer = Dialer(limits, resolve=resolve or self._resolver, why_refused=why_refused)
        self._carrier = Carrier(allowed, dialer, limits, asyncio.Semaphore(limits.all_connections))
        self._quotas: weakref.WeakValueDictionary[int, Quota] = weakref.WeakValueDictionary()
        self._doors: weakref.WeakSet[Door] = weakref.WeakSet()

    def open_door(self, task_id: int) -> tuple[Door, int]:
        """The way out of one command, and the socket its start needs for it (the caller's to close)."""
        quota = self._quotas.get(task_id)
        if quota is None:
            quota = self._quotas[task_id] = Quota(self._carrier.limits)
        door = Door(self._carrier, quota, task_id)
        control = door.open()
        self._doors.add(door)
        return door, control

    async def close(self) -> None:
        """Cut every connection."""
        doors = list(self._doors)
        for door in doors:
            door.shut()
        for door in doors:
            await door.ended()
        self._resolver.close()
