"""What one task's files may take on the disk: the task's own limit, and what its user's other tasks leave."""

import logging
from typing import Final

from beray.server.db import stored as queries
from beray.server.db.connect import Queries
from beray.server.errors import STORAGE_FAULTS, Refused

LEAST_BYTES: Final = 1 << 20  # a command may always leave a word why nothing more can be stored
NOTED_BYTES: Final = 1 << 20  # smaller changes wait for the run's end, when its folder is measured

log = logging.getLogger("beray.files")


class TaskRoom:
    """Looks anew at each command: other tasks of the user come, grow and go.

    Tasks that run at the same time don't know what the others' commands are writing just now, so together they may get
    over the user's limit by what each has left.

    Args:
        database: Where the sizes of tasks are kept.
        task_id: The task.
        most_of_user: Bytes all tasks of its user may take; 0: no limit.
    """

    def __init__(self, database: Queries, task_id: int, *, most_of_user: int) -> None:
        self._database = database
        self._task_id = task_id
        self._most_of_user = most_of_user
        self._noted: int | None = None

    async def within(self, own_limit: int) -> int:
        """Bytes the task's files may take now, at most `own_limit`."""
        if self._most_of_user == 0:
            return own_limit
        others = await self._database.read(lambda connection: queries.sum_bytes_of_others(connection, self._task_id))
        return max(LEAST_BYTES, min(own_limit, self._most_of_user - others))

    async def note(self, held: int | None) -> None:
        """A command has ended, and the task's files take so much by now; None: unknown."""
        if held is None or abs(held - (self._noted or 0)) < NOTED_BYTES:
            return
        try:
            await self._database.write(lambda connection: queries.put_bytes(connection, self._task_id, held))
        except Refused as refused:
            if refused.code not in STORAGE_FAULTS:
                raise
            log.warning("what the files of task %s take could not be kept: %s", self._task_id, refused.code)
            return
        self._noted = held
