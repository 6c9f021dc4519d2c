"""This process among the others on a shared database: its heartbeat, and whether they share what must be shared."""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from beray import __version__
from beray.server.db.connect import Database
from beray.server.db.processes import Living, Process, adopt_volume, find_volume
from beray.server.engine.base import Worker
from beray.server.engine.heartbeat import Heartbeat
from beray.server.readiness import Readiness, State
from beray.server.work_dirs.volume import Volume

SEEN_MS = 10_000  # a process that began later may not be seen on the volume yet (network file systems)
HANGS_SECONDS = 10.0  # a network file system that is away makes who looks wait, for hours if it likes
LEAVE_SECONDS = 2.0
WORK_DIRS = "work_dirs"
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
        self._database = database
        self._work_dirs = work_dirs
        self._readiness = readiness
        self._volume = Volume(work_dirs, self.process.id)
        self._mark = ""
        self._is_beating = self._is_listening = True
        self._worker: Worker | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looking_since = 0.0
        self._missing: Sequence[str] = ()
        self._heartbeat = Heartbeat(
            database.make_engine(), self.process, about=lambda: self.about, on_living=self._note_living
        )

    async def join(self, worker: Worker | None = None) -> None:
        """Show up, on the volume and in the database. The worker claims nothing while the folder is the wrong one.

        Raises:
            OSError: The folder of the work_dirs can't be written.
            DBAPIError: The database can't be reached.
        """
        self._worker = worker
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                await asyncio.to_thread(self._volume.join)
                await asyncio.to_thread(self._volume.sweep)
                self._mark = await self._find_mark()
                await self._look(())
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, "no answer", str(self._work_dirs)) from error
        await self._heartbeat.start()

    async def _find_mark(self) -> str:
        """The mark that the folder must have: the first process that ever came has used the right one."""
        mark = await self._database.read(find_volume)
        if mark is None:
            own = await asyncio.to_thread(self._volume.mark)
            mark = await self._database.write(partial(adopt_volume, mark=own))
        return mark

    def guard(self) -> None:
        """Let the worker run only while the lease holds, and take over what dead processes have left."""
        assert self._worker is not None, "joined without a worker"
        self._heartbeat.guard(self._worker)

    async def leave(self) -> None:
        """Say good-bye; the worker has been closed before."""
        await self._heartbeat.stop()
        if self._looking is not None:  # else it makes the file once more
            await asyncio.wait({self._looking}, timeout=LEAVE_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._volume.leave), LEAVE_SECONDS)

    @property
    def has_volume(self) -> bool:
        """The folder of the work_dirs is the right one, as of the last look."""
        return self.about.get(WORK_DIRS) == "ok"

    def about_workers(self) -> list[dict[str, Any]]:
        """What the living workers say of themselves."""
        return [json.loads(one.about) for one in self.living if one.role in RUNNING_ROLES]

    def _note_living(self, living: Sequence[Living] | None) -> None:
        self._is_beating = living is not None
        self._judge_database()
        if living is None:
            return
        self.living = living
        has_worker = any(one.role in RUNNING_ROLES for one in living)
        hint = None if has_worker else "No worker is running: tasks wait until one starts (beray worker)."
        self._readiness.set("workers", "ok", hint)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(living))
            self._looking_since = time.monotonic()
        elif time.monotonic() - self._looking_since > HANGS_SECONDS:
            self._judge("failed", f"{self._work_dirs} does not answer. See to its volume.")

    def note_listening(self, is_listening: bool) -> None:
        """Whether notices of other processes arrive: stops, queued tasks, events."""
        self._is_listening = is_listening
        self._judge_database()

    def _judge_database(self) -> None:
        is_reached = self._is_beating and self._is_listening
        hint = "The database cannot be reached, or not listened to; it is tried again all the time. See the log."
        self._readiness.set("database", "ok" if is_reached else "failed", None if is_reached else hint)

    async def _look(self, living: Sequence[Living]) -> None:
        """Whether the folder is the right one, and the others' files are where ours is."""
        others = {one.id: one for one in living if one.age_ms > SEEN_MS and one.id != self.process.id}
        try:
            missing = await asyncio.to_thread(self._look_there, others)
        except OSError as error:
            self._judge("failed", f"{self._work_dirs} cannot be used: {error.strerror}.")
            return
        if missing is None:
            self._judge(
                "failed",
                f"{self._work_dirs} is not the folder of the work_dirs that this database's tasks have. Mount its"
                " volume there, or set BERAY_WORK_DIRS to it.",
            )
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
        # Who is on another folder misses everybody; the others miss only it, and must not all be taken for broken.
        strangers = {one.id for one in others.values() if json.loads(one.about).get(WORK_DIRS) == "failed"}
        lost = len(set(missing) - strangers)
        self._judge("failed" if 2 * lost > len(others.keys() - strangers) else "ok", hint)

    def _look_there(self, others: Mapping[str, Living]) -> Sequence[str] | None:
        """Whose files are missing; None: the folder is another one. Blocks."""
        return self._volume.missing(others) if self._volume.has_mark(self._mark) else None

    def _judge(self, state: State, hint: str | None) -> None:
        """Say how the folder is; a worker that has the wrong one, or none, claims no task."""
        self._readiness.set(WORK_DIRS, state, hint)
        self.about[WORK_DIRS] = state
        if self._worker is not None:
            self._worker.pause(state == "failed")
