"""`beray admin purge`: delete what is old, now. Works beside running servers, which do the same daily when told to."""

import asyncio
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from beray.server.clock import Clock, system_clock
from beray.server.db import migrate
from beray.server.db.open import database_url, make_database
from beray.server.db.sqlite import SqliteDatabase
from beray.server.engine.dbos_queue import DbosQueue
from beray.server.errors import Refused
from beray.server.settings import Settings
from beray.server.tasks.control import RunControl
from beray.server.tasks.deletions import Deletions
from beray.server.work_dirs.work_dir import WorkDirs

DAY_MS = 86_400_000


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
    async with _Parts(settings, clock) as deletions:
        try:
            found = await deletions.count_ended(before)
            return Purged(found, 0 if is_dry else await deletions.purge(before))
        except (DBAPIError, OSError, Refused, TimeoutError) as error:
            raise PurgeError(f"Something could not be deleted: {error}. Call it again when that is mended.") from error


class _Parts:
    """What deleting needs of a server, for as long as the block lasts."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        url = database_url(settings)
        self._database = make_database(url)
        self._engine = DbosQueue(url)
        work_dirs = WorkDirs(settings.work_dirs or settings.data_dir / "tasks")
        self._deletions = Deletions(database=self._database, work_dirs=work_dirs, control=RunControl(), clock=clock)

    async def __aenter__(self) -> Deletions:
        database = self._database
        if isinstance(database, SqliteDatabase) and not database.path.exists():
            raise PurgeError(f"There is no database in {database.path.parent}. Name the data folder with --data DIR.")
        try:
            await asyncio.to_thread(self._check_schema)
            database.open()
            await self._engine.start()
        except (DBAPIError, Refused, migrate.NewerSchemaError) as error:
            raise PurgeError(f"The database cannot be used: {error}") from error
        self._deletions.engine = self._engine
        return self._deletions

    def _check_schema(self) -> None:
        engine = self._database.make_engine()
        try:
            migrate.upgrade(engine)
        finally:
            engine.dispose()

    async def __aexit__(self, *error: object) -> None:
        await self._engine.close()
        await asyncio.to_thread(self._database.close)
