"""Says that this process lives, and notices which others do not: what makes a dead process' runs go on elsewhere.

Every process beats every 2 s. Who has not beaten for 10 s, by the database's clock, is dead, and its runs are taken
over. So a process that can't beat must have let go of its own before that: after 8 s it cuts them (a fence, not a
stop: nothing is recorded), and takes up what is still its own when it can beat again. Where its own clock stood still
meanwhile (SIGSTOP, a suspended machine), the attempt number and the engine's owner token keep it from writing.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine

from beray.server.db import processes
from beray.server.db.faults import one_line
from beray.server.db.processes import LEASE_SECONDS, Living, Process
from beray.server.engine.base import Worker

BEAT_SECONDS = 2.0
FENCE_SECONDS = LEASE_SECONDS - 2.0  # killing tools takes well under a second; the rest is for slow clocks
LOOK_SECONDS = 0.5  # how often the fence is looked at
ANSWER_SECONDS = 5.0  # a beat without an answer by then is a failure, though it may come yet
LEAVE_SECONDS = 5.0

log = logging.getLogger("beray.engine")


def boot_seconds() -> float:
    """Seconds since the machine was started, those it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Heartbeat:
    """The beat of this process.

    Args:
        engine: A database engine of its own: it must not wait for anybody else's connection.
        me: This process.
        about: What others may want to know of it, asked at each beat; JSON.
        on_living: Gets the living processes after each beat, and None when a beat failed.
    """

    def __init__(
        self,
        engine: Engine,
        me: Process,
        *,
        about: Callable[[], Mapping[str, Any]],
        on_living: Callable[[Sequence[Living] | None], None],
    ) -> None:
        self._engine = engine
        self._me = me
        self._about = about
        self._on_living = on_living
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beray-heartbeat")
        self._lease_from = boot_seconds()
        self._is_fenced = False
        self._is_failing = False
        self._is_cutting = False
        self._beating: asyncio.Future[Sequence[Living]] | None = None
        self._worker: Worker | None = None
        self._tending: asyncio.Task[None] | None = None
        self._jobs: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Beat once, then go on in the background.

        Raises:
            DBAPIError: The database can't be reached.
        """
        await self._beat()
        self._jobs = [asyncio.create_task(self._beat_forever()), asyncio.create_task(self._guard())]

    def guard(self, worker: Worker) -> None:
        """From now on fence this worker, and let it take over what the dead have left."""
        self._worker = worker

    async def stop(self) -> None:
        """Stop to beat, and say that this process ends; its worker has been closed before."""
        jobs = self._jobs if self._tending is None else [*self._jobs, self._tending]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        leaving = asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        with contextlib.suppress(Exception):  # an unreachable database learns it from the lease
            await asyncio.wait_for(leaving, LEAVE_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._beat()
                self._is_failing = False
            except Exception as error:  # tried again at the next beat
                if not self._is_failing:  # said once, not at each beat
                    log.warning("heartbeat failed; trying every %g s: %s", BEAT_SECONDS, one_line(error))
                self._is_failing = True
                self._on_living(None)
                continue
            if self._tending is None or self._tending.done():  # beside the beats, which must not wait for it
                self._tending = asyncio.create_task(self._tend())

    async def _beat(self) -> None:
        if self._beating is not None and not self._beating.done():
            raise TimeoutError("the last beat has had no answer yet")
        began = boot_seconds()  # before the database reads its own clock: never too late
        loop = asyncio.get_running_loop()
        self._beating = loop.run_in_executor(self._thread, self._beat_in_thread, json.dumps(self._about()))
        await asyncio.wait({self._beating}, timeout=ANSWER_SECONDS)
        if not self._beating.done():
            raise TimeoutError("the database has not answered")
        living = self._beating.result()
        self._lease_from = began
        self._on_living(living)

    def _beat_in_thread(self, about: str) -> Sequence[Living]:
        with self._engine.begin() as connection:
            return processes.beat(connection, self._me, about)

    def _leave(self) -> None:
        with self._engine.begin() as connection:
            processes.leave(connection, self._me.id)

    async def _tend(self) -> None:
        """What a worker does after a beat: go on if it was fenced, take over what the dead have left."""
        if self._worker is None or self._is_cutting:
            return
        try:
            if self._is_fenced and boot_seconds() - self._lease_from < FENCE_SECONDS:
                await self._worker.go_on()
                self._is_fenced = False
                log.warning("this process holds its lease again and goes on")
            if not self._is_fenced:
                await self._worker.recover_dead()
        except Exception:  # tried again after the next beat
            log.exception("the worker could not go on or take over")

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            silent = boot_seconds() - self._lease_from
            if self._worker is None or self._is_fenced or silent < FENCE_SECONDS:
                continue
            self._is_fenced = self._is_cutting = True
            log.error("no heartbeat for %.1f s: the runs of this process are cut, others may take them over", silent)
            try:
                await self._worker.cut()
            except Exception:  # what could not be cut is fenced by its attempt number
                log.exception("cutting the runs failed")
            self._is_cutting = False
