"""Bodies of the admins' routes: what comes in is checked by them, what goes out is described by them."""

from typing import Literal

from pydantic import BaseModel, StrictBool

from beray.protocol.status import Status
from beray.protocol.types import ModelKind
from beray.server.agent.models.routes import CheckBody as ModelCheckBody
from beray.server.tasks.bodies import DayLimitsBody, DayUsedBody, UsageBody


class SetRole(BaseModel):
    """The body of PUT /admin/users/{user_id}."""

    is_admin: StrictBool


class TaskCountsBody(BaseModel):
    """`queued` with those that are held."""

    queued: int
    running: int
    waiting: int
    ended: int


class EndedBody(BaseModel):
    """Tasks that have ended since the day (UTC) began."""

    completed: int
    failed: int
    stopped: int


class QueueBody(BaseModel):
    """Tasks that wait for a worker, and for how long the first of them has."""

    queued: int
    oldest_seconds: int | None


class ProcessBody(BaseModel):
    """A process that lives: when it has said so last, and the runs it has; `running` is null while nobody can tell."""

    id: str
    host: str
    pid: int
    role: Literal["all", "api", "worker"]
    version: str
    beat_seconds: float
    running: int | None


class StorageBody(BaseModel):
    """`stored_bytes` as far as files have been measured; the disk's are null while it does not answer."""

    stored_bytes: int
    free_bytes: int | None
    total_bytes: int | None
    database_bytes: int


class LastCheckBody(ModelCheckBody):
    seconds_ago: int


class ModelBody(BaseModel):
    """`last_check`: how the latest POST /model/check of it ended at this process; null: there was none."""

    name: str
    kind: ModelKind
    last_check: LastCheckBody | None


class PartBody(BaseModel):
    state: Literal["ok", "starting", "failed"]
    hint: str | None


class LimitsBody(BaseModel):
    requests: int
    tool_calls: int
    tokens: int
    wall_seconds: int
    cost_usd: float | None
    user_day: DayLimitsBody
    server_day: DayLimitsBody
    upload_bytes: int
    streams_per_user: int
    stored_bytes_per_user: int
    running_tasks_per_user: int


class OverviewBody(BaseModel):
    version: str
    users: int
    tasks: TaskCountsBody
    ended_today: EndedBody
    queue: QueueBody
    processes: list[ProcessBody]
    storage: StorageBody
    model: ModelBody
    checks: dict[str, PartBody]
    usage_today: DayUsedBody
    limits: LimitsBody


class UsedTodayBody(BaseModel):
    """Of what is known; `requests_of_unknown_cost` says what the sums lack."""

    requests: int
    tokens: int
    cost_usd: float
    requests_of_unknown_cost: int


class SeenUserBody(BaseModel):
    """`last_login_at`: of the sessions that are still known; null: none is."""

    id: int
    email: str
    created_at: str
    is_admin: bool
    tasks: int
    active_tasks: int
    stored_bytes: int
    usage_today: UsedTodayBody
    last_login_at: str | None


class OwnerBody(BaseModel):
    id: int
    email: str


class SeenTaskBody(BaseModel):
    """A task without what was said in it."""

    id: int
    user: OwnerBody
    status: Status
    created_at: str
    started_at: str | None
    finished_at: str | None
    model: str | None
    usage: UsageBody
    run: int
    attempt: int
    stop_requested: bool


class EntryBody(BaseModel):
    """An entry of the audit log."""

    id: int
    at: str
    action: str
    user_id: int | None
    who: str | None
    address: str | None
    task_id: int | None
    resource: str | None
    request_id: str | None
