"""Hands messages over, again and again until they are taken, or given up.

A message is claimed with a lease that outlasts an attempt, sent, and settled. Whoever dies in between leaves it to the
next, so a receiver may get it twice, with the same id. One dead receiver takes only its user's and its host's few
places, and is not in the others' way: the oldest message of each user is looked at, not the oldest of all, and users
take turns, so that dead receivers of many users, with a thousand old messages each, only make the others wait a turn.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from beray.protocol.webhook_signature import signed_headers
from beray.server.clock import Clock
from beray.server.db import webhooks as queries
from beray.server.db.connect import Database
from beray.server.db.webhooks import Attempted, Claimed, Due
from beray.server.events.wakeups import wait_changed
from beray.server.rounds import attempt
from beray.server.webhooks.reach import Reach, host_of
from beray.server.webhooks.schedule import next_try_ms
from beray.server.webhooks.secrets import Secrets

if TYPE_CHECKING:
    from beray.server.webhooks.sending import Sender

AT_ONCE: Final = 16
AT_ONCE_OF_USER: Final = 2
AT_ONCE_TO_HOST: Final = 4
LOOKUPS_OF_USER: Final = 2
LOOK_SECONDS: Final = 5.0  # between looks without being woken: a notice can be lost
LOOK_LEAST_SECONDS: Final = 0.05
DUE_MOST: Final = 500  # users whose oldest message is looked at in one round
TURNS_MOST: Final = 10_000  # users whose turn is remembered; with more all are forgotten, and begin anew
LEASE_MS: Final = 30_000  # an attempt takes 10 s at most

log = logging.getLogger("beray.webhooks")


class Deliveries:
    """Sends what waits, as long as it runs.

    Args:
        database: Where the messages wait.
        clock: The server's.
        secrets: What signs them.
        reach: Where they may go.
        make_sender: Makes what sends them; called once, in a thread, when the first is due.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        secrets: Secrets,
        reach: Reach,
        make_sender: "Callable[[Reach], Sender] | None" = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._secrets = secrets
        self._reach = reach
        self._make_sender = make_sender or _make_sender
        self._sender: Sender | None = None
        self._woken = asyncio.Event()
        self._flying: dict[asyncio.Task[None], tuple[int, str]] = {}  # user and host
        self._turns: dict[int, int] = {}  # user: the number of their latest attempt
        self._numbers = count(1)
        # A lookup that was given up goes on in its thread, and keeps its place until it has ended.
        self._lookups: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    def wake(self) -> None:
        """A message waits."""
        self._woken.set()

    async def run(self) -> None:
        """Send what is due, until cancelled; what is under way then is sent again by the next process."""
        try:
            if not self._database.is_shared:  # who had claimed what is left is dead
                await attempt(lambda: self._database.write(queries.release_all), "taking up webhooks")
            while True:
                self._woken.clear()
                now = self._clock()
                await attempt(partial(self._begin_due, now), "delivering webhooks")
                await wait_changed(self._woken, await self._pause_seconds(now))
        finally:
            for one in self._flying:
                one.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)
            if self._sender is not None:
                self._sender.close()

    async def _pause_seconds(self, now: int) -> float:
        """Until the next message is due that was not at that time, as far as is known."""
        found: list[int | None] = []

        async def look() -> None:
            found.append(await self._database.read(lambda connection: queries.next_due(connection, now=now)))

        await attempt(look, "looking for webhooks")
        if not found or found[0] is None:
            return LOOK_SECONDS
        return min(max((found[0] - self._clock()) / 1000, LOOK_LEAST_SECONDS), LOOK_SECONDS)

    async def _begin_due(self, now: int) -> None:
        """Begin as many attempts as there are places; each that ends wakes for the next."""
        while len(self._flying) < AT_ONCE:
            due = await self._database.read(partial(queries.list_due, now=now, limit=DUE_MOST))
            chosen = self._choose(due)
            if not chosen:
                return
            claimed = await self._database.write(
                partial(queries.claim, ids=[one.id for one in chosen], now=now, lease_ms=LEASE_MS)
            )
            if self._sender is None and claimed:
                self._sender = await asyncio.to_thread(self._make_sender, self._reach)
            for message in claimed:
                self._begin(message)

    def _choose(self, due: Sequence[Due]) -> list[Due]:
        chosen: list[Due] = []
        places = list(self._flying.values())
        for one in sorted(due, key=lambda one: self._turns.get(one.user_id, 0)):
            place = (one.user_id, host_of(one.url or ""))
            is_user_free = sum(user_id == place[0] for user_id, _ in places) < AT_ONCE_OF_USER
            is_host_free = sum(host == place[1] for _, host in places) < AT_ONCE_TO_HOST
            if is_user_free and is_host_free and len(places) < AT_ONCE:
                chosen.append(one)
                places.append(place)
        return chosen

    def _begin(self, message: Claimed) -> None:
        job = asyncio.create_task(self._deliver(message))
        self._flying[job] = (message.user_id, host_of(message.url))
        if len(self._turns) >= TURNS_MOST:
            self._turns.clear()
        self._turns[message.user_id] = next(self._numbers)
        job.add_done_callback(self._end)

    def _end(self, job: "asyncio.Task[None]") -> None:
        del self._flying[job]
        self._woken.set()
        if not job.cancelled() and (error := job.exception()) is not None:  # its lease lapses, and it is sent again
            log.error("what came of a webhook could not be kept", exc_info=error)

    async def _deliver(self, message: Claimed) -> None:
        assert self._sender is not None, "made before the first is begun"
        lookups = self._lookups.get(message.user_id) or asyncio.Semaphore(LOOKUPS_OF_USER)
        self._lookups[message.user_id] = lookups
        keys = [self._secrets.key(message.user_id, salt) for salt in message.salts]
        headers = signed_headers(
            keys, message_id=message.message_id, timestamp=self._clock() // 1000, body=message.body
        )
        answered = await self._sender.send(message.url, message.body, headers, lookups=lookups)
        now = self._clock()
        due_at = None
        if answered.fault is not None:
            again = next_try_ms(
                message.attempts,
                status=answered.status,
                asked_seconds=answered.asked_seconds,
                random=random.random(),  # noqa: S311 - spreads tries, guards nothing
            )
            due_at = None if again is None else now + again
        result = Attempted(answered.status, answered.fault, due_at)
        await self._database.patient.write(partial(queries.settle, message=message, result=result, now=now))
        _log(message, result)


def _log(message: Claimed, result: Attempted) -> None:
    told: dict[str, object] = {"task_id": message.task_id, "user_id": message.user_id, "attempt": message.attempts}
    if result.fault is None:
        log.info("webhook delivered", extra=told)
        return
    level = logging.WARNING if result.due_at is None else logging.INFO
    what = "given up" if result.due_at is None else "not taken"
    told |= {"status": result.status, "fault": result.fault}
    log.log(level, "webhook %s: %s", what, result.status or result.fault, extra=told)


def _make_sender(reach: Reach) -> "Sender":
    from beray.server.webhooks.sending import Sender  # the HTTP library: not before it is needed

    return Sender(reach)
