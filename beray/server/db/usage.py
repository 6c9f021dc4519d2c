"""SQL of what models and tools have used, by user and day.

One row a task and day: only the task's own run writes it, so processes don't wait for each other's. Checks of a model
belong to no task and are counted for the user under the number 0. Rows outlive their task, for deleting one gives
nothing back of what it has used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, text

NO_TASK: Final = 0
"""In the place of a task's id: what was used outside of any."""


@dataclass(frozen=True)
class UsedSums:
    """What was used.

    Attributes:
        cost_usd: Of the answers whose cost is known.
        unpriced: Requests whose cost is not known, those that are under way included.
        elapsed_ms: Time that runs have worked.
        estimated_tokens: Of the requests whose tokens are not known; for limits only, never shown.
        estimated_cost_usd: Of those whose cost is not known, likewise.
    """

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    elapsed_ms: int = 0
    estimated_tokens: int = 0
    estimated_cost_usd: float = 0.0

    def plus(self, other: "UsedSums") -> "UsedSums":
        """Both together."""
        return UsedSums(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})

    def minus(self, before: "UsedSums") -> "UsedSums":
        """What came after `before`."""
        return UsedSums(**{name: getattr(self, name) - getattr(before, name) for name in NAMES})

    @property
    def tokens(self) -> int:
        """In and out, as limits count them."""
        return self.input_tokens + self.output_tokens + self.estimated_tokens

    @property
    def money_usd(self) -> float:
        """What was spent, as limits count it."""
        return self.cost_usd + self.estimated_cost_usd


NAMES = tuple(each.name for each in fields(UsedSums))
_DOLLARS = frozenset({"cost_usd", "estimated_cost_usd"})

_SUMS = ", ".join(f"COALESCE(sum({name}), 0) AS {name}" for name in NAMES)
_SUM_UP = ", ".join(f"{name} = usage_day.{name} + excluded.{name}" for name in NAMES)
_ADD = text(
    f"INSERT INTO usage_day (task_id, day, user_id, {', '.join(NAMES)})"  # noqa: S608 - only constants
    f" VALUES (:task_id, :day, :user_id, {', '.join(':' + name for name in NAMES)})"
    f" ON CONFLICT (user_id, day, task_id) DO UPDATE SET {_SUM_UP}"
)
_OF_USER = text(f"SELECT {_SUMS} FROM usage_day WHERE user_id = :user_id AND day = :day")  # noqa: S608 - only constants
_OF_ALL = text(f"SELECT {_SUMS} FROM usage_day WHERE day = :day")  # noqa: S608 - only constants
_OF_EACH = text(
    f"SELECT user_id, {_SUMS} FROM usage_day WHERE user_id IN :user_ids AND day = :day GROUP BY user_id"  # noqa: S608 - only constants
).bindparams(bindparam("user_ids", expanding=True))
_DELETE = text("DELETE FROM usage_day WHERE day < :day")


def add_used(connection: Connection, *, task_id: int, user_id: int, day: int, used: UsedSums) -> None:
    """Count `used` for the day (days since the epoch, UTC)."""
    values = {name: getattr(used, name) for name in NAMES}
    connection.execute(_ADD, {"task_id": task_id, "day": day, "user_id": user_id, **values})


def sum_of_user(connection: Connection, user_id: int, day: int) -> UsedSums:
    """What the user's tasks have used on the day."""
    return _sums(connection.execute(_OF_USER, {"user_id": user_id, "day": day}).one())


def sum_of_all(connection: Connection, day: int) -> UsedSums:
    """What all users' tasks have used on the day."""
    return _sums(connection.execute(_OF_ALL, {"day": day}).one())


def sums_of_users(connection: Connection, user_ids: Sequence[int], day: int) -> dict[int, UsedSums]:
    """What each of the users' tasks have used on the day; who has used nothing is left out."""
    rows = connection.execute(_OF_EACH, {"user_ids": list(user_ids), "day": day})
    return {row.user_id: _sums(row) for row in rows}


def _sums(row: Row[Any]) -> UsedSums:
    found = row._mapping
    numbers: dict[str, Any] = {name: float(found[name]) if name in _DOLLARS else int(found[name]) for name in NAMES}
    return UsedSums(**numbers)


def delete_before(connection: Connection, day: int) -> int:
    """Forget the days before this one; how many rows."""
    return connection.execute(_DELETE, {"day": day}).rowcount
