"""A task as the wire shows it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson

from beray.protocol.types import Task, Usage
from beray.server.clock import iso, iso_or_none
from beray.server.db.tasks import TaskRecord
from beray.server.events.log import frame_body

NO_USAGE: Usage = {
    "requests": 0,
    "tool_calls": 0,
    "input_tokens": None,
    "cached_input_tokens": None,
    "output_tokens": None,
    "cost_usd": None,
}


def task_view(row: TaskRecord) -> Task:
    """The JSON object of a task, without its events."""
    return cast(Task, _fields(row, orjson.loads))


def task_body(row: TaskRecord) -> bytes:
    """The JSON bytes of a task, without its events; what is stored as JSON is copied, not decoded."""
    return orjson.dumps(_fields(row, orjson.Fragment))


def _fields(row: TaskRecord, json: Callable[[str], Any]) -> dict[str, Any]:
    """What is shown of a task; `json` makes a value of what is stored as JSON."""
    return {
        "id": row.id,
        "goal": row.goal,
        "status": row.status,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "started_at": iso_or_none(row.started_at),
        "finished_at": iso_or_none(row.finished_at),
        "result": row.result,
        "error": None if row.error is None else json(row.error),
        "model": row.model,
        "model_kind": row.model_kind,
        "tools": None if row.tools is None else json(row.tools),
        "usage": json(row.usage),
        "last_seq": row.last_seq,
        "run": row.run,
        "attempt": row.attempt,
        "stop_requested": bool(row.stop_requested),
        "question": None if row.question is None else json(row.question),
    }


def task_body_with_events(row: TaskRecord, frames: Sequence[bytes]) -> bytes:
    """The JSON bytes of a task with its events, which are copied as they are stored, not decoded."""
    return task_body(row)[:-1] + b',"events":[' + b",".join(map(frame_body, frames)) + b"]}"
