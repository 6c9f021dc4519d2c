"""`beray admin purge`: delete what is old, now. Works beside running servers, which do the same daily when told to."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from beray.server.beside import CannotWork, DatabaseUnusable, operator, reading, unusable
from beray.server.clock import DAY_MS, Clock, system_clock
from beray.server.db import tasks as queries
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.faults import reason
from beray.server.db.open import database_url, make_database
from beray.server.db.processes import LIVES, find_volume
from beray.server.engine.dbos_queue import DbosQueue
from beray.server.errors import Refused
from beray.server.settings import Settings
from beray.server.tasks.control import RunControl
from beray.server.tasks.deletions import OTHERS_DELETE_MS, Deletions, DeletionsFailed
from beray.server.work_dirs.volume import FOLDER, read_mark, unseen
from beray.server.work_dirs.work_dir import WorkDirs

_BEGUN: Final = text("SELECT id FROM task WHERE attempt > 0 AND deleted_at IS NULL")  # each has had a folder
_LIVING: Final = text(f"SELECT id, pid, host FROM process p WHERE {LIVES} ORDER BY id")  # noqa: S608  # only constants


class PurgeError(CannotWork):
    """What is old could not be deleted; the text says why and what to do."""


@dataclass(frozen=True)
class Purged:
    """How many tasks ended more than so many days ago, and how many of them were deleted."""

    found: int
    deleted: int


def purge(settings: Settings, *, days: int, is_dry: bool, clock: Clock = system_clock) -> Purged:
    """Delete tasks that ended more than `days` days ago, with events, files and the engine's records.

    A dry one only reads. Deletions that were begun and not finished are finished too; they are not counted.

    Raises:
        PurgeError: There is no database that this version can use, or something could not be deleted.
        SettingError: A setting can't be used.
    """
    before = clock() - days * DAY_MS
    purging = _Purging(settings, clock)
    found = purging.look(before)
    about = f"{found} tasks that ended more than {days} days ago"
    return Purged(found, 0 if is_dry else asyncio.run(purging.run(before, about)))


class _Purging:
    """One purge, with what it needs of a server."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._url = database_url(settings)
        self._clock = clock
        self._database = make_database(self._url)
        self._root = settings.work_dirs or settings.data_dir / "tasks"

    def look(self, before: int) -> int:
        """How many tasks ended before a time. Changes nothing.

        Raises:
            PurgeError: They can't be deleted, or not with their files.
        """
        try:
            with reading(self._database) as connection:
                found = queries.count_ended(connection, before)
                if found or queries.list_hidden(connection, self._clock() - OTHERS_DELETE_MS):
                    self._check_work_dirs(connection)
            return found
        except DatabaseUnusable as error:
            raise PurgeError(str(error)) from error

    def _check_work_dirs(self, connection: Connection) -> None:
        """Whether the tasks' files are where they would be deleted: the folder may be named apart from the database.

        Raises:
            PurgeError: The folder is not the one that the servers use; the files would stay for ever.
        """
        try:
            if self._database.is_shared:
                self._check_shared(connection)
            elif not _holds_any(self._root, connection.execute(_BEGUN).scalars().all()):
                raise _other_folder(self._root, "has no files of any task")
        except OSError as error:
            raise _other_folder(self._root, f"cannot be looked at ({error.strerror})") from error

    def _check_shared(self, connection: Connection) -> None:
        if not self._root.is_dir():
            raise _other_folder(self._root, "does not exist")
        folder = self._root / FOLDER
        living = _list_living(connection)
        if missing := _find_unseen(folder, living):
            raise _other_folder(self._root, f"is not the folder that {living[missing[0]]} uses")
        if not folder.is_dir():
            raise _other_folder(self._root, f"has no {FOLDER}, so no server has ever used it")
        if read_mark(self._root) != find_volume(connection):
            raise _other_folder(self._root, "belongs to another database")

    async def run(self, before: int, about: str) -> int:
        """Delete the tasks that ended before a time; how many. `about` goes to the audit log first.

        Raises:
            PurgeError: Something could not be deleted.
        """
        database, engine = self._database, DbosQueue(self._url)
        deletions = Deletions(
            database=database,
            work_dirs=WorkDirs(self._root),
            control=RunControl(),
            clock=self._clock,
            is_alone=False,
        )
        try:
            try:
                database.open()
                await engine.start()
                entry = AuditRow(self._clock(), "admin.purge", who=operator(), resource=about)
                await database.write(lambda connection: insert_row(connection, entry))
            except (DBAPIError, OSError, Refused) as error:
                raise PurgeError(str(unusable(database, error))) from error
            deletions.engine = engine
            return await _delete(deletions, before, self._url)
        finally:
            await engine.close()
            await asyncio.to_thread(database.close)


async def _delete(deletions: Deletions, before: int, url: URL) -> int:
    try:
        return await deletions.purge(before)
    except DeletionsFailed as error:
        raise PurgeError(
            f"{error}. Mend that: a running server then deletes them by itself, and so does a purge 5 minutes later."
        ) from error
    except (DBAPIError, OSError, Refused) as error:
        why = reason(error, url)
        raise PurgeError(f"Something could not be deleted: {why}. Call it again when that is mended.") from error


def _list_living(connection: Connection) -> dict[str, str]:
    """The processes that live: what to call each, by its id."""
    return {row.id: f"process {row.pid} on {row.host}" for row in connection.execute(_LIVING)}


def _find_unseen(folder: Path, living: Iterable[str]) -> list[str]:
    try:
        return unseen(folder, living)
    except FileNotFoundError:  # no process has ever been here
        return sorted(living)


def _holds_any(root: Path, task_ids: Collection[int]) -> bool:
    """Whether there is a folder of one of the tasks, if there are any; one alone may have been lost in a crash."""
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        names = set()
    return not task_ids or any(str(task_id) in names for task_id in task_ids)


def _other_folder(root: Path, what: str) -> PurgeError:
    return PurgeError(
        f"Nothing was deleted: {root} {what}, and the files of the tasks would stay behind. Set BERAY_WORK_DIRS to the"
        " folder of the work_dirs that the servers use, or name their data folder with --data DIR."
    )
