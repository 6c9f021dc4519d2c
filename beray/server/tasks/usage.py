"""What a user's tasks have used today, and may."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from beray.protocol.types import DayUsed
from beray.server.agent.budget import Limits
from beray.server.clock import DAY_MS, Clock, iso
from beray.server.db import usage as queries
from beray.server.db.connect import Queries
from beray.server.db.usage import UsedSums


def day_used(sums: UsedSums) -> DayUsed:
    """What was used, as the wire shows it: of what is known; `requests_of_unknown_cost` says what the sums lack."""
    return {
        "requests": sums.requests,
        "tool_calls": sums.tool_calls,
        "input_tokens": sums.input_tokens,
        "cached_input_tokens": sums.cached_input_tokens,
        "output_tokens": sums.output_tokens,
        "wall_seconds": sums.elapsed_ms // 1000,
        "cost_usd": round(sums.cost_usd, 6),
        "requests_of_unknown_cost": sums.unpriced,
    }


class DayUsage:
    """Tells each user of their day (UTC)."""

    def __init__(self, database: Queries, clock: Clock, limits: Limits) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits

    async def today(self, user_id: int) -> dict[str, Any]:
        """The body of GET /users/me/usage."""
        day = self._clock() // DAY_MS
        sums = await self._database.scan(lambda connection: queries.sum_of_user(connection, user_id, day))
        first = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date()
        return {
            "day": first.isoformat(),
            "resets_at": iso((day + 1) * DAY_MS),
            "used": day_used(sums),
            "limits": asdict(self._limits.user_day),
        }
