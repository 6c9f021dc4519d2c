"""How the whole service is doing: GET /admin/overview."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from beray.protocol.status import ENDED, STATUSES
from beray.protocol.types import ModelCheck
from beray.server.clock import DAY_MS, Clock
from beray.server.db.admin import Totals, count_all
from beray.server.db.connect import Database
from beray.server.db.faults import one_line
from beray.server.db.processes import Beating, Process, list_beating
from beray.server.readiness import Readiness
from beray.server.tasks.usage import day_used

DISK_SECONDS: Final = 2.0  # a network file system that is away makes who looks wait, for hours if it likes

ACTIVE: Final = tuple(status for status in STATUSES if status not in ENDED)

log = logging.getLogger("beray.admin")


@dataclass(frozen=True)
class Told:
    """What the other parts of the server tell of themselves.

    Attributes:
        process: This process.
        info: What /api/v1/info answers.
        check: How the parts are now.
        last_check: How the latest check of the default model ended here, and seconds since.
        count_running: How many runs each process has, by its id; None: the engine does not work.
    """

    process: Process
    info: Callable[[], dict[str, Any]]
    check: Callable[[], Awaitable[Readiness]]
    last_check: Callable[[], tuple[ModelCheck, float] | None]
    count_running: Callable[[], Awaitable[Mapping[str, int] | None]]


class Overview:
    """Looks at everything once.

    Args:
        database: Open before the first call.
        clock: The server's clock.
        work_dirs: The folder whose disk is looked at.
        told: By the other parts.
    """

    def __init__(self, database: Database, clock: Clock, *, work_dirs: Path, told: Told) -> None:
        self._database = database
        self._clock = clock
        self._told = told
        self._disk = _Disk(work_dirs)

    async def look(self) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            Refused: `database_unavailable`.
        """
        now = self._clock()
        day = now // DAY_MS
        totals = await self._database.scan(lambda connection: count_all(connection, day=day, since=day * DAY_MS))
        info = self._told.info()
        return {
            "version": info["version"],
            "users": totals.users,
            "tasks": {status: totals.active.get(status, 0) for status in ACTIVE} | {"ended": totals.ended},
            "ended_today": {status: totals.ended_today.get(status, 0) for status in STATUSES if status in ENDED},
            "queue": _queue(totals, now),
            "processes": await self._processes(),
            "storage": await self._storage(totals),
            "model": self._model(info),
            "checks": (await self._told.check()).checks,
            "usage_today": day_used(totals.used_today),
            "limits": info["limits"],
        }

    async def _processes(self) -> list[dict[str, Any]]:
        running = await self._count_running()
        living: Sequence[Beating] = (Beating(self._told.process, 0),)
        if self._database.is_shared:
            living = await self._database.read(list_beating)
        return [
            {
                "id": one.process.id,
                "host": one.process.host,
                "pid": one.process.pid,
                "role": one.process.role,
                "version": one.process.version,
                "beat_seconds": round(one.silent_ms / 1000, 1),
                "running": None if running is None else running.get(one.process.id, 0),
            }
            for one in living
        ]

    async def _count_running(self) -> Mapping[str, int] | None:
        try:
            return await self._told.count_running()
        except SQLAlchemyError as error:  # the engine has connections of its own, which may be away alone
            log.warning("the runs can't be counted: %s", one_line(error))
            return None

    async def _storage(self, totals: Totals) -> dict[str, int | None]:
        free, total = await self._disk.look() or (None, None)
        return {
            "stored_bytes": totals.stored_bytes,
            "free_bytes": free,
            "total_bytes": total,
            "database_bytes": totals.database_bytes,
        }

    def _model(self, info: Mapping[str, Any]) -> dict[str, Any]:
        last = self._told.last_check()
        return {
            "name": info["model"],
            "kind": info["model_kind"],
            "last_check": None if last is None else {**last[0], "seconds_ago": round(last[1])},
        }


def _queue(totals: Totals, now: int) -> dict[str, Any]:
    oldest = totals.oldest_queued_at
    return {"queued": totals.queued, "oldest_seconds": None if oldest is None else max(0, now - oldest) // 1000}


class _Disk:
    """How full the disk is where a folder is, or will be; one look at a time, since one that hangs holds a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looking: asyncio.Future[tuple[int, int]] | None = None

    async def look(self) -> tuple[int, int] | None:
        """Free and all bytes; None: the disk does not answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(None, self._measure)
        done, _ = await asyncio.wait({self._looking}, timeout=DISK_SECONDS)
        return self._looking.result() if done and self._looking.exception() is None else None

    def _measure(self) -> tuple[int, int]:
        disk = os.statvfs(next(path for path in (self._folder, *self._folder.parents) if path.exists()))
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
