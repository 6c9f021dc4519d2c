"""The JSON of the wire contract as types (WIRE.md). Results of the SDK are plain dicts of these shapes.

Times are ISO 8601 UTC with milliseconds and `Z`. A field that is not known is `None`, never invented.
"""

from typing import Any, Literal, NotRequired, TypedDict

from beray.protocol.status import Status

JsonObject = dict[str, Any]

ModelKind = Literal["model", "rules"]

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


class User(TypedDict):
    id: int
    email: str
    created_at: str


class Session(TypedDict):
    """What register and login answer."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    """Seconds until the token expires."""
    user: User


class ApiToken(TypedDict):
    """What a program logs in with; the secret itself is shown only when it is made."""

    id: int
    name: str
    created_at: str
    expires_at: str | None
    """None: never."""
    last_used_at: str | None
    """At most an hour behind; None: not used yet."""


class CreatedApiToken(ApiToken):
    token: str
    """The secret; shown this once."""


class Message(TypedDict):
    """An answer that is a sentence for people."""

    message: str


class StopAnswer(TypedDict):
    message: str
    status: Status


class UploadAnswer(TypedDict):
    message: str
    path: str
    size: int
    sha256: str


class Usage(TypedDict):
    requests: int
    tool_calls: int
    input_tokens: int | None
    cached_input_tokens: NotRequired[int | None]
    """Of the input tokens, those that the provider had cached."""
    output_tokens: int | None
    cost_usd: float | None


LimitName = Literal["requests", "tool_calls", "tokens", "wall_seconds", "cost_usd"]


class Budget(TypedDict):
    """Which limit is reached, and how far."""

    limit: LimitName
    scope: Literal["task", "user_day", "server_day"]
    used: float
    allowed: float
    setting: str
    """What raises it at the server."""


class TaskError(TypedDict):
    code: str
    message: str
    hint: str | None
    retryable: bool
    budget: NotRequired[Budget]
    """Of `budget_exceeded` and `cost_unknown`."""


class ModelCheck(TypedDict):
    """How a model answered one small request."""

    model: str
    model_kind: ModelKind
    ok: bool
    answered: str | None
    """The beginning of its answer; null where there was none, and in rules mode, which asks nobody."""
    latency_ms: int | None
    error: TaskError | None
    """What is wrong, and what to do about it."""


class Event(TypedDict):
    """One entry of a task's log; further fields depend on `type` (WIRE.md, "Events and the stream")."""

    v: int
    seq: int
    at: str
    task_id: int
    type: EventType


class Task(TypedDict):
    id: int
    goal: str
    status: Status
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    result: str | None
    error: TaskError | None
    model: str | None
    model_kind: ModelKind | None
    tools: list[str] | None
    usage: Usage
    last_seq: int
    run: int
    attempt: int
    stop_requested: bool
    question: JsonObject | None
    events: NotRequired[list[Any]]
    """Only in the answer of `get_task`; objects of the shape `Event`."""


class ToolInfo(TypedDict):
    """A name that a task's `tools` may hold (`/api/v1/info`)."""

    name: str
    description: str
    """One line, for people."""
    is_default: bool
    """A task whose `tools` is null may use it."""


class FileNode(TypedDict):
    """A file, directory or symlink of a work_dir; `path` is relative to it and `/`-separated."""

    name: str
    path: str
    type: Literal["file", "directory", "symlink"]
    size: int
    modified_at: str
    children: NotRequired[list["FileNode"]]
    truncated: NotRequired[bool]


class ErrorItem(TypedDict):
    loc: list[str | int]
    msg: str
    type: str


class Problem(TypedDict):
    """The one error shape, `application/problem+json`."""

    detail: str
    code: str
    status: int
    title: str
    request_id: str
    errors: NotRequired[list[ErrorItem]]
