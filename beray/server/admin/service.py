"""What admins may see and do: everybody's accounts and tasks, without what was said in them; roles; the audit log.

Who asks has been shown to be an admin (`Accounts.authenticate_admin`).
"""

from dataclasses import replace

from sqlalchemy import Connection

from beray.protocol.types import StopAnswer
from beray.server.admin.roles import demote, promote
from beray.server.audit import AuditTrail
from beray.server.clock import DAY_MS, Clock
from beray.server.db import admin as queries
from beray.server.db.admin import EntryFilter, Page, SeenTask, SeenUser, TaskFilter, UserFilter
from beray.server.db.audit import AuditRecord
from beray.server.db.connect import Database
from beray.server.db.tables import ID_MOST
from beray.server.errors import Refused
from beray.server.tasks.service import Tasks


class Admins:
    """Answers admins."""

    def __init__(self, database: Database, clock: Clock, *, tasks: Tasks, trail: AuditTrail) -> None:
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._trail = trail

    async def list_users(self, wanted: UserFilter) -> Page[SeenUser]:
        """Users, newest first."""
        day = self._clock() // DAY_MS
        return await self._database.scan(lambda connection: queries.list_users(connection, wanted, day))

    async def set_admin(self, user_id: int, *, is_admin: bool) -> SeenUser:
        """Make a user an admin, or no admin any more.

        Raises:
            Refused: `user_not_found`, `last_admin`, `admin_needs_password`.
        """
        entry = self._trail.row("admin.promoted" if is_admin else "admin.demoted")
        day = self._clock() // DAY_MS

        def change(connection: Connection) -> SeenUser:
            user = _found(connection, user_id, day).user
            told = replace(entry, resource=user.email)
            if is_admin:
                promote(connection, user, told)
            else:
                demote(connection, user, told, may_be_last=False)
            return _found(connection, user_id, day)

        return await self._database.write(change)

    async def list_tasks(self, wanted: TaskFilter) -> Page[SeenTask]:
        """Tasks, newest first."""
        return await self._database.scan(lambda connection: queries.list_tasks(connection, wanted))

    async def stop(self, task_id: int) -> StopAnswer:
        """Stop anybody's task, as its owner would.

        Raises:
            Refused: `task_not_found`, `task_already_ended`.
        """
        known = task_id if 0 < task_id <= ID_MOST else 0
        owner = await self._database.read(lambda connection: queries.find_owner(connection, known))
        if owner is None:
            raise Refused("task_not_found", task_id=task_id)
        entry = self._trail.row("admin.task.stopped", task_id=task_id, resource=owner.email)
        return await self._tasks.stop(owner, task_id, entry=entry)

    async def list_entries(self, wanted: EntryFilter) -> Page[AuditRecord]:
        """Entries of the audit log, newest first."""
        return await self._database.scan(lambda connection: queries.list_entries(connection, wanted))


def _found(connection: Connection, user_id: int, day: int) -> SeenUser:
    seen = queries.get_user(connection, user_id, day) if 0 < user_id <= ID_MOST else None
    if seen is None:
        raise Refused("user_not_found", user=user_id)
    return seen
