"""The events of a task's log as types, and what they hold. `event["type"]` tells which one a dict is.

A class is named as its `type` is written (`tool.output` is `ToolOutput`), but for two whose name would be another
thing's.
Types and fields only ever grow: a newer server may send events that are not here.
"""

from typing import Any, Literal, NotRequired, TypedDict

from beray.protocol.status import Status

ModelKind = Literal["model", "rules"]

LimitName = Literal["requests", "tool_calls", "tokens", "wall_seconds", "cost_usd"]

EventType = Literal[
    "task.created",
    "task.started",
    "task.status",
    "step.started",
    "step.finished",
    "text.delta",
    "text.done",
    "text.reset",
    "tool.requested",
    "tool.started",
    "tool.output",
    "tool.finished",
    "file.changed",
    "plan.updated",
    "input.requested",
    "input.received",
    "model.retry",
    "model.fallback",
    "context.compacted",
    "usage.updated",
    "error",
    "task.finished",
]


# What events hold, and tasks too


class Usage(TypedDict):
    """What a task has used in all its runs; `None` is not known, never invented."""

    requests: int
    tool_calls: int
    input_tokens: int | None
    cached_input_tokens: NotRequired[int | None]
    """Of the input tokens, those that the provider had cached."""
    output_tokens: int | None
    cost_usd: float | None


class Budget(TypedDict):
    """Which limit is reached, and how far."""

    limit: LimitName
    scope: Literal["task", "user_day", "server_day"]
    used: float
    allowed: float
    setting: str
    """What raises it at the server."""


class TaskError(TypedDict):
    """Why a task has failed."""

    code: str
    message: str
    hint: str | None
    """What to do about it."""
    retryable: bool
    """Whether submitting the task again may help."""
    budget: NotRequired[Budget]
    """Of `budget_exceeded` and `cost_unknown`."""


class Question(TypedDict):
    """What the agent asks, and waits for."""

    question_id: str
    question: str
    choices: list[str] | None
    """Answers to choose from; the user may answer something else."""


class PlanItem(TypedDict):
    text: str
    status: Literal["todo", "doing", "done"]


class FileSize(TypedDict):
    """A file of the work_dir: its path within it, and its size in bytes."""

    path: str
    size: int


class Dropped(TypedDict):
    """What a shortened conversation lacks."""

    tool_results: int
    messages: int


# Events


class _Stored(TypedDict):
    """What every event has."""

    v: int
    seq: int
    """Its number within the task: from 1, rising by exactly 1."""
    at: str
    task_id: int


class _State(_Stored):
    status: Status
    model: str
    """As `provider:name`."""
    model_kind: ModelKind
    run: int
    attempt: int
    """How often the run was taken: 0 before the first time."""
    stop_requested: bool


class TaskCreated(_State):
    """Always the first event."""

    type: Literal["task.created"]


class TaskStarted(_State):
    """A worker took the run, or took it over after a crash."""

    type: Literal["task.started"]


class TaskStatusEvent(_State):
    """`task.status`: a stop was asked for, the task waits or goes on, a further run is queued."""

    type: Literal["task.status"]


class _Step(_Stored):
    step: int
    usage: Usage


class StepStarted(_Step):
    """A turn of the agent begins."""

    type: Literal["step.started"]


class StepFinished(_Step):
    type: Literal["step.finished"]


class TextDelta(_Stored):
    """More of a text the model is writing."""

    type: Literal["text.delta"]
    message_id: str
    delta: str


class TextDone(_Stored):
    """The whole text; it replaces its deltas."""

    type: Literal["text.done"]
    message_id: str
    text: str


class TextReset(_Stored):
    """The model's stream was cut: the message's deltas are void."""

    type: Literal["text.reset"]
    message_id: str
    reason: str


class _ToolCall(_Stored):
    call_id: str
    name: str
    args: dict[str, Any]
    """Long ones are cut."""
    title: str
    """What the call does, in one line for people."""


class ToolRequested(_ToolCall):
    """The model asks for a tool call."""

    type: Literal["tool.requested"]


class ToolStarted(_ToolCall):
    type: Literal["tool.started"]


class ToolOutput(_Stored):
    """More of a running command's output."""

    type: Literal["tool.output"]
    call_id: str
    stream: Literal["stdout", "stderr"]
    delta: str
    truncated: bool


class ToolFinished(_Stored):
    type: Literal["tool.finished"]
    call_id: str
    ok: bool
    summary: str
    """How the call ended, in one line for people."""
    exit_code: int | None
    duration_ms: int
    truncated: bool


class FileChanged(_Stored):
    """A tool call changed a file of the work_dir."""

    type: Literal["file.changed"]
    path: str
    change: Literal["created", "modified", "deleted"]
    size: int
    """In bytes; 0 for a deleted file."""


class PlanUpdated(_Stored):
    """The agent's plan, whole."""

    type: Literal["plan.updated"]
    items: list[PlanItem]


class InputRequested(_Stored, Question):
    """The agent asks the user; the task waits."""

    type: Literal["input.requested"]


class InputReceived(_Stored):
    """The user has said something."""

    type: Literal["input.received"]
    question_id: str | None
    """The question that it answers."""
    content: str


class ModelRetry(_Stored):
    """A request to the model failed and will be repeated."""

    type: Literal["model.retry"]
    attempt: int
    """Which try failed."""
    wait_s: float
    code: str


_FailedModel = TypedDict("_FailedModel", {"from": str})  # `from` is a keyword: no class can declare it


class ModelFallback(_Stored, _FailedModel):
    """The run's model (`from`) has failed for good; another takes over."""

    type: Literal["model.fallback"]
    to: str
    code: str


class ContextCompacted(_Stored):
    """The conversation was shortened to fit the model; sizes in tokens."""

    type: Literal["context.compacted"]
    before: int
    after: int
    how: Literal["cleared", "cut", "summarised", "dropped"]
    dropped: Dropped


class UsageUpdated(_Stored):
    type: Literal["usage.updated"]
    usage: Usage


class ErrorEvent(_Stored, TaskError):
    """`error`: why the task fails; `task.finished` follows."""

    type: Literal["error"]


class TaskFinished(_Stored):
    """The run is over. Exactly once a run, always last."""

    type: Literal["task.finished"]
    status: Literal["completed", "failed", "stopped"]
    result: str | None
    """The agent's final text."""
    error: TaskError | None
    usage: Usage
    files: list[FileSize]
    """Those of the work_dir at the end; at most 100."""
    files_total: int


Event = (
    TaskCreated
    | TaskStarted
    | TaskStatusEvent
    | StepStarted
    | StepFinished
    | TextDelta
    | TextDone
    | TextReset
    | ToolRequested
    | ToolStarted
    | ToolOutput
    | ToolFinished
    | FileChanged
    | PlanUpdated
    | InputRequested
    | InputReceived
    | ModelRetry
    | ModelFallback
    | ContextCompacted
    | UsageUpdated
    | ErrorEvent
    | TaskFinished
)
