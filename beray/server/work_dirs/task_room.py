"""What one task's files may take on the disk: the task's own limit, and what its user's other tasks leave."""

import logging
from dataclasses import dataclass
from typing import Final

from beray.server.db.attempts import Attempt
from beray.server.errors import STORAGE_FAULTS, Refused
from beray.server.work_dirs.stored import Measured, StoredBytes

LEAST_BYTES: Final = 1 << 20  # a command may always leave a word why nothing more can be stored
NOTED_BYTES: Final = 1 << 20  # smaller changes wait for the run's end, when its folder is measured

log = logging.getLogger("beray.files")


@dataclass
class TaskRoom:
    """Looks anew at each command: other tasks of the user come, grow and go.

    Tasks that run at the same time don't know what the others' commands are writing just now, so together they may get
    over the user's limit by what each has left.

    Attributes:
        stored: What users store, and may.
        attempt: Only while this is the task's attempt, what its commands leave is kept.
        known: Bytes its files took when that was asked for last; None: never, or not measured.
    """

    stored: StoredBytes
    user_id: int
    task_id: int
    attempt: Attempt
    known: int | None = None

    async def within(self, own_limit: int) -> int:
        """Bytes the task's files may take now, at most `own_limit`; a command is about to begin."""
        self.known = await self.stored.of_task(self.task_id)
        if self.stored.most == 0:
            return own_limit
        others = await self.stored.of_user(self.user_id, but=self.task_id)
        return min(own_limit, max(LEAST_BYTES, self.stored.most - others))

    async def note(self, held: int | None) -> None:
        """A command has ended, and the task's files take so many bytes by now; None: unknown."""
        if self.stored.most == 0 or held is None or abs(held - (self.known or 0)) < NOTED_BYTES:
            return
        try:
            await self.stored.keep(self.task_id, Measured(held, self.known), attempt=self.attempt)
        except Refused as refused:  # the run's end makes it good
            if refused.code not in STORAGE_FAULTS:
                raise
            log.warning("what the files of task %s take could not be kept: %s", self.task_id, refused.code)
