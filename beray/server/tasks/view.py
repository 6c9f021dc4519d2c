"""A task as the wire shows it."""

from collections.abc import Sequence
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
    return {
        "id": row.id,
        "goal": row.goal,
        "status": row.status,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "started_at": iso_or_none(row.started_at),
        "finished_at": iso_or_none(row.finished_at),
        "result": row.result,
        "error": _loads(row.error),
        "model": row.model,
        "model_kind": row.model_kind,
        "tools": _loads(row.tools),
        "usage": cast(Usage, orjson.loads(row.usage)),
        "last_seq": row.last_seq,
        "run": row.run,
        "attempt": row.attempt,
        "stop_requested": bool(row.stop_requested),
        "question": _loads(row.question),
    }


def task_body(row: TaskRecord) -> bytes:
    """The JSON bytes of a task, without its events."""
    return orjson.dumps(task_view(row))


def task_body_with_events(row: TaskRecord, frames: Sequence[bytes]) -> bytes:
    """The JSON bytes of a task with its events, which are copied as they are stored, not decoded."""
    return task_body(row)[:-1] + b',"events":[' + b",".join(map(frame_body, frames)) + b"]}"


def _loads(stored: str | None) -> Any:
    return None if stored is None else orjson.loads(stored)
