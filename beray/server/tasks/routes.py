"""HTTP of tasks: /tasks and /tasks/{task_id}."""

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Header, Query, Request, Response

from beray.protocol.status import Status
from beray.protocol.types import EventType, Message, StopAnswer
from beray.server.auth.service import Accounts
from beray.server.bodies import Plain
from beray.server.db.tables import ID_MOST
from beray.server.db.tasks import TaskFilter
from beray.server.json_response import JsonResponse
from beray.server.messages import text
from beray.server.refusals import READING, SIGNED_IN, WRITING, refused_with
from beray.server.tasks.answers import LIST_MOST, TaskAnswers
from beray.server.tasks.bodies import (
    CreateTask,
    DayUsageBody,
    MessageBody,
    SendMessage,
    StopBody,
    TaskBody,
    TaskWithEventsBody,
)
from beray.server.tasks.service import Tasks
from beray.server.tasks.usage import DayUsage
from beray.server.tasks.view import task_body

WantedEvents = Annotated[str, Query(json_schema_extra={"pattern": r"^(all|none|tail:[0-9]{1,9})$"})]

READ = (*READING, *SIGNED_IN, "task_not_found")
CHANGE = (*WRITING, *SIGNED_IN, "task_not_found")
CREATE_REFUSALS = refused_with(
    *WRITING,
    *SIGNED_IN,
    "goal_empty",
    "goal_too_long",
    "unknown_tools",
    "unknown_model",
    "cost_limit_unknown",
    "webhook_url_invalid",
    "storage_full",
    "idempotency_mismatch",
    "starting",
)
MESSAGE_REFUSALS = (
    *CHANGE,
    "message_empty",
    "message_too_long",
    "task_being_stopped",
    "question_closed",
    "conversation_full",
    "rules_read_no_messages",
    "too_many_messages",
    "storage_full",
    "idempotency_mismatch",
    "starting",
)
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "`If-None-Match` names what is still there."}}
EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "`seq`"},
        "event": {"enum": list(get_args(EventType))},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The event, on one line."},
    },
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, one object each.", "content": {"text/event-stream": {"schema": EVENT}}}
}


def build_router(tasks: Tasks, accounts: Accounts, answers: TaskAnswers, usage: DayUsage) -> APIRouter:
    """The routes of tasks."""
    router = APIRouter(tags=["tasks"])

    @router.post("/tasks", status_code=201, response_model=TaskBody, responses=CREATE_REFUSALS)
    async def create_task(
        request: Request, body: CreateTask, idempotency_key: Annotated[str | None, Header(max_length=255)] = None
    ) -> Response:
        """Create a task; it is queued at once unless `hold` is true."""
        user = await accounts.authenticate(request)
        answer = await tasks.create(user, body.new_task(), key=idempotency_key or None)
        return JsonResponse(answer, status_code=201)

    @router.post(
        "/tasks/{task_id}/start",
        response_model=TaskBody,
        responses=refused_with(*CHANGE, "task_already_started", "storage_full", "starting"),
    )
    async def start_task(request: Request, task_id: int) -> Response:
        """Start a task that was created with `hold`."""
        user = await accounts.authenticate(request)
        return JsonResponse(task_body(await tasks.start(user, task_id)))

    @router.post(
        "/tasks/{task_id}/messages", status_code=201, response_model=TaskBody, responses=refused_with(*MESSAGE_REFUSALS)
    )
    async def send_message(
        request: Request,
        task_id: int,
        body: SendMessage,
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    ) -> Response:
        """Say something to the agent at work, answer its question, or begin a further run of an ended task."""
        user = await accounts.authenticate(request)
        answer = await tasks.send_message(
            user, task_id, body.content, question_id=body.question_id, key=idempotency_key or None
        )
        return JsonResponse(answer, status_code=201)

    @router.get("/tasks", response_model=list[TaskBody], responses=UNCHANGED | refused_with(*READING, *SIGNED_IN))
    async def list_tasks(
        request: Request,
        limit: Annotated[int | None, Query(ge=1, le=LIST_MOST)] = None,
        before: Annotated[int | None, Query(ge=1)] = None,
        status: Annotated[list[Status] | None, Query()] = None,
        q: Annotated[Plain | None, Query(max_length=1000)] = None,
    ) -> Response:
        """The user's tasks, newest first; all of them unless `limit` is given."""
        wanted = TaskFilter(
            limit=limit,
            before=None if before is None else min(before, ID_MOST),
            statuses=tuple(status or ()),
            search=q or None,
        )
        return await answers.list(request, wanted)

    @router.get("/tasks/{task_id}", response_model=TaskWithEventsBody, responses=refused_with(*READ))
    async def get_task(request: Request, task_id: int, events: WantedEvents = "all") -> Response:
        """A task with its events: `all`, `none`, or the last N by `tail:N`."""
        return await answers.task(request, task_id, events)

    @router.get("/users/me/usage", response_model=DayUsageBody, responses=refused_with(*READING, *SIGNED_IN))
    async def get_usage(request: Request) -> dict[str, Any]:
        """What the user's tasks have used today (UTC), and may; a limit of null is none."""
        user = await accounts.authenticate(request)
        return await usage.today(user.id)

    @router.get(
        "/tasks/{task_id}/stream", response_class=Response, responses=STREAMED | refused_with(*READ, "too_many_streams")
    )
    async def stream_task(request: Request, task_id: int, after: Annotated[int | None, Query(ge=0)] = None) -> Response:
        """The task's events as `text/event-stream`: those after `Last-Event-ID` (or `after`), then live."""
        return await answers.stream(request, task_id, after)

    @router.post(
        "/tasks/{task_id}/stop", response_model=StopBody, responses=refused_with(*CHANGE, "task_already_ended")
    )
    async def stop_task(request: Request, task_id: int) -> StopAnswer:
        """Stop a queued, running or waiting task."""
        user = await accounts.authenticate(request)
        return await tasks.stop(user, task_id)

    @router.delete(
        "/tasks/{task_id}",
        response_model=MessageBody,
        responses=refused_with(*CHANGE, "task_being_deleted", "starting"),
    )
    async def delete_task(request: Request, task_id: int) -> Message:
        """Delete a task with its events and work_dir; a running one is stopped first."""
        user = await accounts.authenticate(request)
        await tasks.delete(user, task_id)
        return {"message": text("task_deleted", task_id=task_id)}

    return router
