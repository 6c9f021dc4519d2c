"""`beray admin purge`: delete what is old, now. Works beside running servers, which do the same daily when told to."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from beray.server.clock import Clock, system_clock
from beray.server.db import migrate
from beray.server.db.faults import reason
from beray.server.db.open import database_url, make_database
from beray.server.db.processes import LIVES
from beray.server.db.sqlite import SqliteDatabase
from beray.server.engine.dbos_queue import DbosQueue
from beray.server.errors import Refused
from beray.server.settings import Settings
from beray.server.tasks.control import RunControl
from beray.server.tasks.deletions import Deletions
from beray.server.work_dirs.volume import FOLDER, unseen
from beray.server.work_dirs.work_dir import WorkDirs

DAY_MS = 86_400_000
_LIVING: Final = text(f"SELECT id, pid, host FROM process p WHERE {LIVES} ORDER BY id")  # noqa: S608  # only constants


class PurgeError(Exception):
    """What is old could not be deleted; the text says why and what to do."""


@dataclass(frozen=True)
class Purged:
    """How many tasks ended more than so many days ago, and how many of them were deleted."""

    found: int
    deleted: int


def purge(settings: Settings, *, days: int, is_dry: bool, clock: Clock = system_clock) -> Purged:
    """Delete tasks that ended more than `days` days ago, with events, files and the engine's records.

    Raises:
        PurgeError: There is no database, or something could not be deleted.
        SettingError: A setting can't be used.
    """
    return asyncio.run(_purge(settings, clock() - days * DAY_MS, clock, is_dry=is_dry))


async def _purge(settings: Settings, before: int, clock: Clock, *, is_dry: bool) -> Purged:
    parts = _Parts(settings, clock)
    async with parts as deletions:
        try:
            found = await deletions.count_ended(before)
            if found:
                await parts.check_work_dirs()
            return Purged(found, 0 if is_dry else await deletions.purge(before))
        except (DBAPIError, OSError, Refused, TimeoutError) as error:
            why = reason(error, parts.url)
            raise PurgeError(f"Something could not be deleted: {why}. Call it again when that is mended.") from error


class _Parts:
    """What deleting needs of a server, for as long as the block lasts."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.url = database_url(settings)
        self._database = make_database(self.url)
        self._engine = DbosQueue(self.url)
        self._root = settings.work_dirs or settings.data_dir / "tasks"
        self._deletions = Deletions(
            database=self._database, work_dirs=WorkDirs(self._root), control=RunControl(), clock=clock, is_alone=False
        )

    async def __aenter__(self) -> Deletions:
        database = self._database
        if isinstance(database, SqliteDatabase) and not database.path.exists():
            raise PurgeError(f"There is no database in {database.path.parent}. Name the data folder with --data DIR.")
        try:
            await asyncio.to_thread(self._check_schema)
            database.open()
            await self._engine.start()
        except (migrate.NewerSchemaError, migrate.OldServerError) as error:
            raise PurgeError(f"The database cannot be used: {error}") from error
        except (DBAPIError, OSError, Refused, TimeoutError) as error:
            where = "BERAY_DATABASE_URL, and that PostgreSQL runs there" if database.is_shared else "the data folder"
            raise PurgeError(f"The database cannot be used: {reason(error, self.url)}. Check {where}.") from error
        self._deletions.engine = self._engine
        return self._deletions

    def _check_schema(self) -> None:
        engine = self._database.make_engine()
        try:
            migrate.upgrade(engine)
        finally:
            engine.dispose()

    async def check_work_dirs(self) -> None:
        """Whether the tasks' files are where they would be deleted: on a shared database the folder is named apart.

        Raises:
            PurgeError: The folder is not the one that the servers use; their files would stay for ever.
        """
        if not self._database.is_shared:
            return
        if not await asyncio.to_thread(self._root.is_dir):
            raise _other_folder(self._root, "does not exist")
        living = await self._database.read(_list_living)
        if missing := await asyncio.to_thread(_find_unseen, self._root / FOLDER, living):
            raise _other_folder(self._root, f"is not the folder that {living[missing[0]]} uses")

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()
        await asyncio.to_thread(self._database.close)


def _list_living(connection: Connection) -> dict[str, str]:
    """The processes that live: what to call each, by its id."""
    return {row.id: f"process {row.pid} on {row.host}" for row in connection.execute(_LIVING)}


def _find_unseen(folder: Path, living: Iterable[str]) -> list[str]:
    try:
        return unseen(folder, living)
    except FileNotFoundError:  # no process has ever been here
        return sorted(living)


def _other_folder(root: Path, what: str) -> PurgeError:
    return PurgeError(
        f"Nothing was deleted: {root} {what}, and the files of the tasks would stay behind. Set BERAY_WORK_DIRS to the"
        " folder of the work_dirs that all processes share, or name their data folder with --data DIR."
    )
