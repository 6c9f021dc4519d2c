"""What the user says to a run while it works.

Messages wait in the database. Before each request to the model those that are there are put into the conversation, and
marked as delivered in the transaction of the checkpoint that holds it: each reaches the model once, over crashes too.

Fixed rules read the goal of their run and nothing else. What else was said (while the task was queued for a model, and
then a server without one took it) keeps waiting, for a run that has a model.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from beray.server.agent.run import AgentRun
from beray.server.db import messages as queries
from beray.server.db.messages import MessageRow


class Inbox:
    """The messages of one run that its model has not been told yet."""

    def __init__(self, run: AgentRun) -> None:
        self._run = run
        self._taken: Sequence[MessageRow] = ()

    async def take(self) -> list[str]:
        """The texts that wait, oldest first; they count as delivered once `mark` has been committed."""
        self._taken = await self._run.database.read(self._look)
        return [row.content for row in self._taken]

    def _look(self, connection: Connection) -> Sequence[MessageRow]:
        run = self._run
        if run.model.kind == "model":
            return queries.list_waiting(connection, run.task_id)
        goal = queries.first_of_run(connection, run.task_id, run.run) if run.run > 1 else None
        return [] if goal is None else [goal]

    def mark(self, connection: Connection) -> None:
        """Note that what was taken last is in the checkpoint of this transaction."""
        numbers = [row.number for row in self._taken]
        queries.mark_delivered(connection, self._run.task_id, numbers, self._run.clock())

    def has_more(self, connection: Connection) -> bool:
        """Whether something waits; in a transaction that holds the task's row nothing comes before its end."""
        return self._run.model.kind == "model" and queries.count_waiting(connection, self._run.task_id) > 0


async def has_waiting(run: AgentRun) -> bool:
    """Whether the user has said something that the model has not been told."""
    return await run.database.read(lambda connection: queries.count_waiting(connection, run.task_id)) > 0
