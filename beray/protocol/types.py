"""The JSON of the wire contract as types (WIRE.md). Results of the SDK are plain dicts of these shapes.

Times are ISO 8601 UTC with milliseconds and `Z`. A field that is not known is `None`, never invented. A user's
programs take them from `beray.types`.
"""

from typing import Any, Literal, NotRequired, TypedDict

from beray.protocol.events import Budget as Budget
from beray.protocol.events import Event as Event
from beray.protocol.events import EventType as EventType
from beray.protocol.events import LimitName as LimitName
from beray.protocol.events import ModelKind as ModelKind
from beray.protocol.events import Question as Question
from beray.protocol.events import TaskError as TaskError
from beray.protocol.events import Usage as Usage
from beray.protocol.status import Status

JsonObject = dict[str, Any]


class User(TypedDict):
    id: int
    email: str
    created_at: str
    is_admin: NotRequired[bool]
    """Whether the user may look after the service; other servers don't say."""


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
    question: Question | None
    """What a task that waits has asked."""
    events: NotRequired[list[Event]]
    """Only in the answer of `get_task`, unless it was asked for none."""


class ToolInfo(TypedDict):
    """A name that a task's `tools` may hold (`/api/v1/info`)."""

    name: str
    description: str
    """One line, for people."""
    is_default: bool
    """A task whose `tools` is null may use it."""


class OfferedModel(TypedDict):
    """A model that a task may ask for."""

    name: str
    model_kind: ModelKind


class ModelNotice(TypedDict):
    """What people must know of the default model, in both languages; empty where there is nothing to say."""

    zh: str
    en: str


class Confinement(TypedDict):
    """Whether a command of the agent is kept from something, and if not, why."""

    name: Literal["files", "processes", "signals", "network", "metadata", "memory", "process_count", "disk"]
    is_confined: bool
    note: str


class Sandbox(TypedDict):
    """Where commands of the agent run, and what that confines."""

    backend: str
    confinements: list[Confinement]
    python: str | None
    """The interpreter of the tool `python`, which is not there without."""
    notes: list[str]


class Prices(TypedDict):
    """Which tables of prices count, and of which day they are."""

    source: str
    as_of: str | None
    own_models: int
    own_as_of: str | None


class DayLimits(TypedDict):
    """What may be used on a day; `None` is no limit."""

    requests: int | None
    tool_calls: int | None
    tokens: int | None
    wall_seconds: int | None
    cost_usd: float | None


class ServerLimits(TypedDict):
    """The first five are those of one run."""

    requests: int
    tool_calls: int
    tokens: int
    wall_seconds: int
    cost_usd: float | None
    user_day: DayLimits
    server_day: DayLimits
    upload_bytes: int
    streams_per_user: int
    stored_bytes_per_user: int
    running_tasks_per_user: int


class ModelKey(TypedDict):
    """How a first model is set: the variable for its key, and the model that this brings."""

    variable: str
    model: str


class PasswordLimits(TypedDict):
    least_characters: int
    most_characters: int


class Info(TypedDict):
    """The server (`/api/v1/info`)."""

    version: str
    model: str
    model_kind: ModelKind
    model_notice: ModelNotice
    model_keys: list[ModelKey]
    models: list[OfferedModel]
    model_fallback: list[str]
    tools: list[ToolInfo]
    sandbox: Sandbox | None
    """None: no process that runs commands has told yet."""
    prices: Prices
    mail: Literal["smtp", "outbox"]
    """Where mailed codes go; `outbox`: to the server's data folder and terminal alone."""
    password: PasswordLimits
    retention_days: int
    """Days that ended tasks are kept; 0: until their users delete them."""
    limits: ServerLimits


class Health(TypedDict):
    status: Literal["ok"]
    version: str


class ReadyCheck(TypedDict):
    state: Literal["ok", "starting", "failed"]
    hint: str | None
    """How to mend it, or what is worth knowing."""


class Ready(TypedDict):
    status: Literal["ready", "starting", "unavailable"]
    checks: dict[str, ReadyCheck]
    """By the part: `database`, `engine`, `sandbox`, `model`."""
    model: str
    model_kind: ModelKind
    sandbox: Sandbox | None


class DayUsed(TypedDict):
    requests: int
    tool_calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    wall_seconds: int
    cost_usd: float
    requests_of_unknown_cost: int
    """Requests that the sums of tokens and money lack."""


class DayUsage(TypedDict):
    """A user's day (UTC)."""

    day: str
    resets_at: str
    used: DayUsed
    limits: DayLimits


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


class Webhook(TypedDict):
    """Where the account's webhooks go, and how the latest deliveries went."""

    url: str | None
    secret: str | None
    """Shown for ten minutes after it was made, to who sets the webhook; else null."""
    old_secret_until: str | None
    """Until then messages are signed with the secret before, too."""
    pending: int
    """Messages that wait for their first, or next, try."""
    given_up: int
    """Messages that were never taken, or had to make room; counted since the secret was first made."""
    last_attempt_at: str | None
    last_delivered_at: str | None
    last_status: int | None
    """What the receiver answered at the latest attempt; null: nothing came."""
    last_error: str | None
    """Why the latest attempt failed, for people; null: it did not."""


class WebhookTask(Task):
    """The task when the event happened."""

    truncated: NotRequired[list[str]]
    """Fields that are cut: what is long is to be had from `get_task`."""


class WebhookEvent(TypedDict):
    """A webhook's body."""

    type: Literal["task.finished", "input.requested"]
    timestamp: str
    """When it happened; `webhook-timestamp` says when it was sent."""
    data: WebhookTask
