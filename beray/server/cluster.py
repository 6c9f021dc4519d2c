"""This process among the others on a shared database: its heartbeat, and whether they share what must be shared."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beray import __version__
from beray.server.db.connect import Database
from beray.server.db.processes import Living, Process
from beray.server.engine.base import Worker
from beray.server.engine.heartbeat import Heartbeat
from beray.server.readiness import Readiness, State
from beray.server.work_dirs.volume import Volume

SEEN_MS = 10_000  # a process that began later may not be seen on the volume yet (network file systems)
RUNNING_ROLES = frozenset({"all", "worker"})


class Cluster:
    """The processes on one database, as this one sees them.

    Args:
        role: What this process does.
        about: What the others may want to know of it; may be changed until it stops.
    """

    def __init__(self, database: Database, work_dirs: Path, readiness: Readiness, *, role: str) -> None:
        host = socket.gethostname()
        self.process = Process(
            id=f"{host[:40]}-{os.getpid()}-{secrets.token_hex(4)}",
            role=role,
            host=host[:255],
            pid=os.getpid(),
            version=__version__,
        )
        self.about: dict[str, Any] = {}
        self.living: Sequence[Living] = ()
        self._work_dirs = work_dirs
        self._readiness = readiness
        self._volume = Volume(work_dirs, self.process.id)
        self._worker: Worker | None = None
        self._looking: asyncio.Task[None] | None = None
        self._missing: Sequence[str] = ()
        self._heartbeat = Heartbeat(
            database.make_engine(), self.process, about=lambda: self.about, on_living=self._note_living
        )

    async def join(self) -> None:
        """Show up, on the volume and in the database.

        Raises:
            OSError: The folder of the work_dirs can't be written.
            DBAPIError: The database can't be reached.
        """
        await asyncio.to_thread(self._volume.join)
        await asyncio.to_thread(self._volume.sweep)
        await self._heartbeat.start()

    def guard(self, worker: Worker) -> None:
        """Let this worker run only while the lease holds, and take over what dead processes have left."""
        self._worker = worker
        self._heartbeat.guard(worker)

    async def leave(self) -> None:
        """Say good-bye; the worker has been closed before."""
        await self._heartbeat.stop()
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)  # else it makes the file once more
        await asyncio.to_thread(self._volume.leave)

    def about_workers(self) -> list[dict[str, Any]]:
        """What the living workers say of themselves."""
        return [json.loads(one.about) for one in self.living if one.role in RUNNING_ROLES]

    def _note_living(self, living: Sequence[Living] | None) -> None:
        if living is None:
            self._readiness.set("database", "failed", "The database cannot be reached; see the server's log.")
            return
        self.living = living
        self._readiness.set("database", "ok")
        has_worker = any(one.role in RUNNING_ROLES for one in living)
        hint = None if has_worker else "No worker is running: tasks wait until one starts (beray worker)."
        self._readiness.set("workers", "ok", hint)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(living))

    async def _look(self, living: Sequence[Living]) -> None:
        """Whether the others' files are where ours is."""
        others = {one.id: one for one in living if one.age_ms > SEEN_MS and one.id != self.process.id}
        try:
            missing = await asyncio.to_thread(self._volume.missing, others)
        except OSError as error:
            self._judge("failed", f"{self._work_dirs} cannot be used: {error.strerror}.")
            return
        # Who has just ended was among the living a moment ago: it takes two looks.
        missing, self._missing = [name for name in missing if name in self._missing], missing
        if not missing:
            if not self._missing:
                self._judge("ok", None)
            return
        one = others[missing[0]]
        hint = (
            f"{self._work_dirs} is not the folder that process {one.pid} on {one.host} uses for the work_dirs"
            f" ({len(missing)} of {len(living)} processes cannot be seen there). All processes need the same volume:"
            " set BERAY_WORK_DIRS to it."
        )
        # The one on another folder sees nobody; the others miss only it, and must not all be taken for broken.
        self._judge("failed" if 2 * len(missing) > len(others) else "ok", hint)

    def _judge(self, state: State, hint: str | None) -> None:
        """Say how the folder is; a worker that has the wrong one, or none, claims no task."""
        self._readiness.set("work_dirs", state, hint)
        if self._worker is not None:
            self._worker.pause(state == "failed")
