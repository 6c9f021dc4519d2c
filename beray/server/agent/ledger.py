"""A run's account: what it uses is counted for its user's day, in the transaction that remembers it.

Days' limits hold for whatever asks a model: runs, and checks of a model.
"""

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from beray.protocol.types import ModelKind, Usage
from beray.server.agent.budget import NO_LIMITS, Limits, RunLimits, Scope, check_model_call, check_tool_call
from beray.server.agent.progress import Progress, Used
from beray.server.clock import DAY_MS, Clock
from beray.server.db import agent_runs, usage
from beray.server.db.connect import Queries
from beray.server.db.usage import UsedSums

_NOTHING: Final = UsedSums()


@dataclass(frozen=True)
class DayLedger:
    """Holds what is used for a user against the limits of days."""

    database: Queries
    clock: Clock
    user_id: int
    limits: Limits

    async def check_model_call(self, since: UsedSums = _NOTHING) -> None:
        """Whether days' limits let a model be asked once more.

        Args:
            since: What the caller has used and not noted yet.

        Raises:
            BudgetExceeded: They don't.
        """
        for scope, limits in self._days():
            check_model_call((await self._sum(scope)).plus(since), limits, scope=scope)

    @property
    def limits_tool_calls(self) -> bool:
        """Whether `check_tool_call` has to read what is used."""
        return any(limits.tool_calls is not None for _, limits in self._days())

    async def check_tool_call(self) -> None:
        """Whether days' limits let one more tool be called.

        Raises:
            BudgetExceeded: They don't.
        """
        for scope, limits in self._days():
            if limits.tool_calls is not None:
                check_tool_call(await self._sum(scope), limits, scope=scope)

    async def note_check(self, used: UsedSums) -> None:
        """Count what a check of a model uses."""
        today = self._today
        await self.database.write(
            lambda connection: usage.add_used(
                connection, task_id=usage.NO_TASK, user_id=self.user_id, day=today, used=used
            )
        )

    @property
    def seconds_to_midnight(self) -> int:
        """Until the day's limits count anew."""
        return (DAY_MS - self.clock() % DAY_MS) // 1000 + 1

    def _days(self) -> list[tuple[Scope, RunLimits]]:
        days = [(scope, limits) for scope, limits in self.limits.scopes if scope != "task"]
        return [(scope, limits) for scope, limits in days if limits != NO_LIMITS]

    async def _sum(self, scope: Scope) -> UsedSums:
        day = self._today
        if scope == "user_day":
            return await self.database.read(lambda connection: usage.sum_of_user(connection, self.user_id, day))
        return await self.database.read(lambda connection: usage.sum_of_all(connection, day))

    @property
    def _today(self) -> int:
        return self.clock() // DAY_MS


@dataclass(frozen=True, kw_only=True)
class Ledger(DayLedger):
    """Counts what one run uses."""

    task_id: int
    run: int

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

    def close(self, connection: Connection, kind: ModelKind | None) -> Usage | None:
        """Count what the checkpoint of a run that was cut leaves open; what its task has used in all its runs.

        None: the run has not come to a checkpoint.
        """
        row = agent_runs.load_checkpoint(connection, self.task_id, self.run)
        if row is None:
            return None
        progress = Progress.from_row(row)
        progress.used.lose()
        self.note(connection, progress.used)
        agent_runs.save_usage(connection, self.task_id, self.run, progress.to_row().usage)
        return progress.usage(kind or "model")
