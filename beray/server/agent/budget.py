"""What a run may use, and what is said when it is used up."""

from beray.protocol.types import TaskError
from beray.server.messages import Language, text


class BudgetExceeded(Exception):
    """A limit of the run is reached; `limit` is a field of `RunLimits`."""

    def __init__(self, limit: str, used: int, most: int) -> None:
        super().__init__(f"{limit}: {used} of {most}")
        self.limit = limit
        self.used = used
        self.most = most


_LIMITS = {  # a field of RunLimits: its name's key in the catalogue, and the setting that raises it
    "requests": ("limit_requests", "BERAY_MAX_REQUESTS"),
    "tool_calls": ("limit_tool_calls", "BERAY_MAX_TOOL_CALLS"),
    "tokens": ("limit_tokens", "BERAY_MAX_TOKENS"),
    "wall_seconds": ("limit_wall_seconds", "BERAY_MAX_RUN_SECONDS"),
}


def describe_budget(exceeded: BudgetExceeded, language: Language) -> TaskError:
    """What the task's `error` says: which limit, how far, and how to raise it."""
    name_key, setting = _LIMITS[exceeded.limit]
    name = text(name_key, language)
    return {
        "code": "budget_exceeded",
        "message": text(
            "budget_exceeded", language, limit=exceeded.limit, name=name, used=exceeded.used, most=exceeded.most
        ),
        "hint": text("budget_exceeded_hint", language, setting=setting),
        "retryable": False,
    }
