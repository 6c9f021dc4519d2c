"""How an account goes, once it has been closed: its tasks as any that are deleted, then its row.

What is cut anywhere is finished later: a closed account has a mark, and its row goes last.
"""

from functools import partial

from beray.server.clock import Clock
from beray.server.db import accounts as queries
from beray.server.db.connect import Database
from beray.server.tasks.deletions import Deletions


class AccountDeletions:
    """Removes what is left of closed accounts."""

    def __init__(self, database: Database, deletions: Deletions, clock: Clock) -> None:
        self._database = database
        self._deletions = deletions
        self._clock = clock

    async def remove(self, user_id: int) -> None:
        """Remove the tasks of an account that has just been closed here, then its row.

        What can't be removed yet is left to `finish`.
        """
        hidden = await self._database.scan(lambda connection: queries.list_hidden_tasks(connection, user_id))
        await self._deletions.remove_all(hidden)
        await self._remove_row(user_id)

    async def finish(self) -> None:
        """Go on with accounts that were closed before; their hidden tasks go as all do (`Deletions.finish`)."""
        now = self._clock()
        for user_id in await self._database.scan(lambda connection: queries.list_closed(connection, now=now)):
            await self._remove_row(user_id)

    async def _remove_row(self, user_id: int) -> None:
        await self._database.write(partial(queries.remove_account, user_id=user_id, now=self._clock()))
