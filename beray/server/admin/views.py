"""What is shown to admins, as the wire shows it."""

from typing import Any

import orjson

from beray.server.clock import iso, iso_or_none
from beray.server.db.admin import SeenTask, SeenUser
from beray.server.db.audit import AuditRecord


def user_view(seen: SeenUser) -> dict[str, Any]:
    """The JSON object of a user."""
    user, used = seen.user, seen.used_today
    return {
        "id": user.id,
        "email": user.email,
        "created_at": iso(user.created_at),
        "is_admin": user.is_admin,
        "tasks": seen.tasks,
        "active_tasks": seen.active_tasks,
        "stored_bytes": seen.stored_bytes,
        "usage_today": {
            "requests": used.requests,
            "tokens": used.input_tokens + used.output_tokens,
            "cost_usd": round(used.cost_usd, 6),
            "requests_of_unknown_cost": used.unpriced,
        },
        "last_login_at": iso_or_none(seen.last_login_at),
    }


def task_view(seen: SeenTask) -> dict[str, Any]:
    """The JSON object of a task."""
    return {
        "id": seen.id,
        "user": {"id": seen.user_id, "email": seen.email},
        "status": seen.status,
        "created_at": iso(seen.created_at),
        "started_at": iso_or_none(seen.started_at),
        "finished_at": iso_or_none(seen.finished_at),
        "model": seen.model,
        "usage": orjson.loads(seen.usage),
        "run": seen.run,
        "attempt": seen.attempt,
        "stop_requested": bool(seen.stop_requested),
    }


def entry_view(row: AuditRecord) -> dict[str, Any]:
    """The JSON object of an entry of the audit log."""
    return {**row._mapping, "at": iso(row.at)}
