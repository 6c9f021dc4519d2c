"""A run's account: what it uses is counted for its user's day, in the transaction that remembers it."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection

from beray.server.agent.budget import NO_LIMITS, Limits, RunLimits, Scope, check_model_call, check_tool_call
from beray.server.agent.progress import Used
from beray.server.clock import DAY_MS, Clock
from beray.server.db import agent_runs, usage
from beray.server.db.connect import Queries
from beray.server.db.usage import UsedSums


@dataclass(frozen=True)
class Ledger:
    """Counts what one run uses, and holds it against the limits of days."""

    database: Queries
    clock: Clock
    user_id: int
    task_id: int
    run: int
    limits: Limits

    def note(self, connection: Connection, used: Used) -> None:
        """Count what has been used since the checkpoint was last written; call it just before it is written again.

        The checkpoint itself says what has been counted, so nothing is counted twice or left out, whenever the process
        dies and however often the transaction is tried.
        """
        stored = agent_runs.load_usage(connection, self.task_id, self.run)
        before = UsedSums() if stored is None else Used.from_json(json.loads(stored)).sums
        since = used.sums.minus(before)
        if since != UsedSums():
            usage.add_used(connection, task_id=self.task_id, user_id=self.user_id, day=self._today, used=since)

    async def check_model_call(self) -> None:
        """Whether days' limits let the model be asked once more.

        Raises:
            BudgetExceeded: They don't.
        """
        for scope, limits in self._days():
            check_model_call(await self._sum(scope), limits, scope=scope)

    async def check_tool_call(self) -> None:
        """Whether days' limits let one more tool be called.

        Raises:
            BudgetExceeded: They don't.
        """
        for scope, limits in self._days():
            if limits.tool_calls is not None:
                check_tool_call(await self._sum(scope), limits, scope=scope)

    def _days(self) -> list[tuple[Scope, RunLimits]]:
        days: list[tuple[Scope, RunLimits]] = [
            ("user_day", self.limits.user_day),
            ("server_day", self.limits.server_day),
        ]
        return [(scope, limits) for scope, limits in days if limits != NO_LIMITS]

    async def _sum(self, scope: Scope) -> UsedSums:
        day = self._today
        if scope == "user_day":
            return await self.database.read(lambda connection: usage.sum_of_user(connection, self.user_id, day))
        return await self.database.read(lambda connection: usage.sum_of_all(connection, day))

    @property
    def _today(self) -> int:
        return self.clock() // DAY_MS
