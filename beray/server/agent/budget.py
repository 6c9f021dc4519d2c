"""What a run, a user's day and the server's day may use, and what is said when one of them is used up.

Before each model call the persisted usage is held against every limit, and before each tool call the number of calls.
What is not known of a request, since its answer was cut or told nothing, counts by an estimate.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, cast

from beray.protocol.types import LimitName, TaskError
from beray.server.db.usage import UsedSums
from beray.server.messages import Language, text
from beray.server.settings import Settings

Scope = Literal["task", "user_day", "server_day"]


@dataclass(frozen=True)
class RunLimits:
    """What one run may use; exceeded: `failed`, code `budget_exceeded`, files kept. None: no limit."""

    requests: int | None = 50
    tool_calls: int | None = 100
    tokens: int | None = 500_000
    wall_seconds: int | None = 3600
    cost_usd: float | None = None

    def within(self, asked: Mapping[str, Any]) -> "RunLimits":
        """These, where `asked` names no lower ones."""
        return RunLimits(**{name: _lower(most, asked.get(name)) for name, most in asdict(self).items()})


NO_LIMITS: Final = RunLimits(None, None, None, None, None)


@dataclass(frozen=True)
class Limits:
    """All that a run is held against.

    Attributes:
        own: Names of the limits that its task has set itself, lower than the operator's.
    """

    task: RunLimits = RunLimits()
    user_day: RunLimits = NO_LIMITS
    server_day: RunLimits = NO_LIMITS
    own: frozenset[str] = frozenset()

    @property
    def scopes(self) -> tuple[tuple[Scope, RunLimits], ...]:
        """What is limited, and how."""
        return ("task", self.task), ("user_day", self.user_day), ("server_day", self.server_day)

    def asked(self, asked: Mapping[str, Any]) -> "Limits":
        """These, for a task that has set limits itself."""
        task = self.task.within(asked)
        own = frozenset(name for name in asked if getattr(task, name, None) != getattr(self.task, name, None))
        return replace(self, task=task, own=own)


def limits_of(settings: Settings) -> Limits:
    """What the operator allows."""
    task = RunLimits(
        requests=settings.max_requests,
        tool_calls=settings.max_tool_calls,
        tokens=settings.max_tokens,
        wall_seconds=settings.max_run_seconds,
        cost_usd=settings.max_cost_usd or None,
    )
    user_day = RunLimits(
        requests=settings.max_requests_per_user_day or None,
        tool_calls=settings.max_tool_calls_per_user_day or None,
        tokens=settings.max_tokens_per_user_day or None,
        wall_seconds=settings.max_run_seconds_per_user_day or None,
        cost_usd=settings.max_cost_usd_per_user_day or None,
    )
    server_day = RunLimits(
        requests=settings.max_requests_per_day or None,
        tool_calls=settings.max_tool_calls_per_day or None,
        tokens=settings.max_tokens_per_day or None,
        wall_seconds=settings.max_run_seconds_per_day or None,
        cost_usd=settings.max_cost_usd_per_day or None,
    )
    return Limits(task, user_day, server_day)


def money_settings(limits: Limits) -> list[str]:
    """The settings by which the operator limits money."""
    name = _LIMITS["cost_usd"][1]
    return [name + _SUFFIXES[scope] for scope, each in limits.scopes if each.cost_usd is not None]


class BudgetExceeded(Exception):
    """A limit is reached; `limit` is a field of `RunLimits`."""

    def __init__(self, limit: str, used: float, most: float, *, scope: Scope = "task") -> None:
        super().__init__(f"{scope}: {limit}: {used} of {most}")
        self.limit = limit
        self.used = used
        self.most = most
        self.scope: Scope = scope


class CostUnknown(BudgetExceeded):
    """Money is limited, and what the run's answers cost can't be known; `used` is of those that could."""


_LIMITS: Final = {  # a field of RunLimits: its name's key, and the setting of a task's limit; days' end in _PER_…
    "requests": ("limit_requests", "BERAY_MAX_REQUESTS"),
    "tool_calls": ("limit_tool_calls", "BERAY_MAX_TOOL_CALLS"),
    "tokens": ("limit_tokens", "BERAY_MAX_TOKENS"),
    "wall_seconds": ("limit_wall_seconds", "BERAY_MAX_RUN_SECONDS"),
    "cost_usd": ("limit_cost_usd", "BERAY_MAX_COST_USD"),
}
_SUFFIXES: Final[Mapping[Scope, str]] = {"task": "", "user_day": "_PER_USER_DAY", "server_day": "_PER_DAY"}
_MESSAGES: Final[Mapping[Scope, str]] = {
    "task": "budget_exceeded",
    "user_day": "budget_exceeded_user_day",
    "server_day": "budget_exceeded_server_day",
}


def check_model_call(used: UsedSums, limits: RunLimits, *, scope: Scope = "task") -> None:
    """Whether the model may be asked once more.

    Raises:
        BudgetExceeded: It may not.
    """
    amounts = {
        "requests": used.requests,
        "tokens": used.tokens,
        "wall_seconds": used.elapsed_ms // 1000,
        "cost_usd": used.money_usd,
    }
    for name, amount in amounts.items():
        _check(name, amount, getattr(limits, name), scope)


def check_cost_is_told(used: UsedSums, limits: Limits) -> None:
    """Whether limits on money can be kept, after an answer that did not tell what it cost.

    Raises:
        CostUnknown: There is such a limit.
    """
    for scope, each in limits.scopes:
        if each.cost_usd is not None:
            raise CostUnknown("cost_usd", used.money_usd, each.cost_usd, scope=scope)


def check_tool_call(used: UsedSums, limits: RunLimits, *, scope: Scope = "task") -> None:
    """Whether one more tool may be called.

    Raises:
        BudgetExceeded: It may not.
    """
    _check("tool_calls", used.tool_calls, limits.tool_calls, scope)


def _check(name: str, amount: float, most: float | None, scope: Scope) -> None:
    if most is not None and amount >= most:
        raise BudgetExceeded(name, amount, most, scope=scope)


def describe_budget(exceeded: BudgetExceeded, limits: Limits, language: Language) -> TaskError:
    """What the task's `error` says: which limit, how far, and how to raise it."""
    name_key, _ = _LIMITS[exceeded.limit]
    setting = setting_of(exceeded)
    shown = {"used": _amount(exceeded, exceeded.used), "most": _amount(exceeded, exceeded.most)}
    is_unknown = isinstance(exceeded, CostUnknown)
    message = "cost_unknown" if is_unknown else _MESSAGES[exceeded.scope]
    return {
        "code": "cost_unknown" if is_unknown else "budget_exceeded",
        "message": text(message, language, limit=exceeded.limit, name=text(name_key, language), **shown),
        "hint": _hint(exceeded, limits, setting, language),
        "retryable": exceeded.scope != "task" and not is_unknown,  # tomorrow
        "budget": {
            "limit": cast(LimitName, exceeded.limit),
            "scope": exceeded.scope,
            "used": exceeded.used,
            "allowed": exceeded.most,
            "setting": setting,
        },
    }


def setting_of(exceeded: BudgetExceeded) -> str:
    """The operator's setting that raises the limit."""
    return _LIMITS[exceeded.limit][1] + _SUFFIXES[exceeded.scope]


def _hint(exceeded: BudgetExceeded, limits: Limits, setting: str, language: Language) -> str:
    if isinstance(exceeded, CostUnknown):
        return text("cost_unknown_hint", language, setting=setting)
    if exceeded.scope != "task":
        return text("budget_raise_day", language, setting=setting)
    if exceeded.limit in limits.own:
        return text("budget_raise_own", language, limit=exceeded.limit, setting=setting)
    return text("budget_exceeded_hint", language, setting=setting)


def _amount(exceeded: BudgetExceeded, amount: float) -> str:
    return f"{amount:.4f}" if exceeded.limit == "cost_usd" else f"{amount:g}" if amount < 1e6 else f"{amount:.0f}"


def _lower(most: float | None, asked: float | None) -> Any:
    if most is None or asked is None:
        return asked if most is None else most
    return min(most, asked)
