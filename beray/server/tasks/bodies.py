"""Bodies of the tasks' routes: what comes in is checked by them, what goes out is described by them in /openapi.json.

Answers are the dicts of `protocol/types.py`; a test holds the two against each other.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from beray.protocol.status import Status
from beray.protocol.types import ModelKind
from beray.server.bodies import Plain, whole
from beray.server.errors import shown
from beray.server.tasks.service import GOAL_MOST, NewTask
from beray.server.webhooks.routes import WebhookUrl


def _real(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


LIMIT_MOST = 2**31 - 1  # what is larger limits nothing, and may not fit where it is kept


Limit = Annotated[int, Field(ge=1, le=LIMIT_MOST), BeforeValidator(whole)]


LEAST_USD = 1e-6  # what is less is no amount that answers are counted in


Money = Annotated[float, Field(ge=LEAST_USD, le=1e9, allow_inf_nan=False), BeforeValidator(_real)]


class AskedLimits(BaseModel):
    """Limits a client sets for its task; each counts only below the operator's."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, value: object) -> object:
        """A name that is misspelt would limit nothing, unseen."""
        unknown = [name for name in value if name not in cls.model_fields] if isinstance(value, dict) else []
        if unknown:
            named = {"unknown": shown(", ".join(unknown)), "known": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown_limits", "Unknown limits: {unknown}. Known limits: {known}.", named)
        return value

    requests: Limit | None = None
    tool_calls: Limit | None = None
    tokens: Limit | None = None
    wall_seconds: Limit | None = None
    cost_usd: Money | None = None


class CreateTask(BaseModel):
    """The body of POST /tasks/."""

    goal: Annotated[
        Plain, Field(json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$", "maxLength": GOAL_MOST})
    ]
    tools: list[Plain] | None = None
    model: Plain | None = None
    limits: AskedLimits | None = None
    hold: StrictBool = False
    webhook_url: WebhookUrl | None = None

    def new_task(self) -> NewTask:
        """What it asks for."""
        return NewTask(
            goal=self.goal,
            tools=None if self.tools is None else tuple(dict.fromkeys(self.tools)),
            model=self.model,
            limits=None if self.limits is None else self.limits.model_dump(exclude_none=True),
            is_held=self.hold,
            webhook_url=self.webhook_url,
        )


class SendMessage(BaseModel):
    """The body of POST /tasks/{task_id}/messages."""

    content: Annotated[
        Plain, Field(json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$", "maxLength": GOAL_MOST})
    ]
    question_id: Plain | None = None


class UsageBody(BaseModel):
    requests: int
    tool_calls: int
    input_tokens: int | None
    cached_input_tokens: int | None = None
    output_tokens: int | None
    cost_usd: float | None


class BudgetBody(BaseModel):
    limit: str
    scope: str
    used: float
    allowed: float
    setting: str


class DayUsedBody(BaseModel):
    requests: int
    tool_calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    wall_seconds: int
    cost_usd: float
    requests_of_unknown_cost: int


class DayLimitsBody(BaseModel):
    requests: int | None
    tool_calls: int | None
    tokens: int | None
    wall_seconds: int | None
    cost_usd: float | None


class DayUsageBody(BaseModel):
    day: str
    resets_at: str
    used: DayUsedBody
    limits: DayLimitsBody


class TaskErrorBody(BaseModel):
    code: str
    message: str
    hint: str | None
    retryable: bool
    budget: BudgetBody | None = None


class TaskBody(BaseModel):
    id: int
    goal: str
    status: Status
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    result: str | None
    error: TaskErrorBody | None
    model: str | None
    model_kind: ModelKind | None
    tools: list[str] | None
    usage: UsageBody
    last_seq: int
    run: int
    attempt: int
    stop_requested: bool
    question: dict[str, Any] | None


class TaskWithEventsBody(TaskBody):
    events: list[dict[str, Any]] | None = None


class StopBody(BaseModel):
    message: str
    status: Status


class MessageBody(BaseModel):
    message: str
