"""What a task's events come to, told plainly: the console's reducer must come to the same."""

from collections.abc import Sequence
from typing import Any

ENDED = ("completed", "failed", "stopped")


def told_state(events: Sequence[Any]) -> dict[str, Any]:
    """How the task stands after all of them, which begin with the first."""
    statuses = [event["status"] for event in events if "status" in event]
    finished = [event for event in events if event["type"] == "task.finished"]
    plans = [event["items"] for event in events if event["type"] == "plan.updated"]
    has_ended = statuses[-1] in ENDED
    return {
        "status": statuses[-1],
        "run": max(event["run"] for event in events if "run" in event),
        "attempt": [event["attempt"] for event in events if "attempt" in event and "run" in event][-1],
        "last": events[-1]["seq"],
        "texts": _texts(events),
        "calls": _calls(events, has_ended=has_ended),
        "said": [event["content"] for event in events if event["type"] == "input.received"],
        "files": {event["path"]: event["change"] for event in events if event["type"] == "file.changed"},
        "edits": _edits(events),
        "plan": plans[-1] if plans else [],
        "usage": next(event["usage"] for event in reversed(events) if "usage" in event),
        "result": finished[-1]["result"] if has_ended else None,
        "error": finished[-1]["error"] if has_ended else None,
    }


def _texts(events: Sequence[Any]) -> list[str]:
    """The texts that are left, in the order in which they began."""
    held: dict[str, str] = {}
    for event in events:
        if event["type"] == "text.delta":
            held[event["message_id"]] = held.get(event["message_id"], "") + event["delta"]
        elif event["type"] == "text.done":
            held[event["message_id"]] = event["text"]
        elif event["type"] == "text.reset":
            held.pop(event["message_id"], None)
    return list(held.values())


def _calls(events: Sequence[Any], *, has_ended: bool) -> list[dict[str, Any]]:
    calls: dict[str, dict[str, Any]] = {}
    for event in events:
        if "call_id" not in event:
            continue
        told = {"call_id": event["call_id"], "name": None, "status": None, "output": ""}
        held = calls.setdefault(event["call_id"], told)
        if event["type"] == "tool.output":
            held["output"] += event["delta"]
        elif event["type"] == "tool.finished":
            held["status"] = "ok" if event["ok"] else "failed"
        else:
            held["name"] = event["name"]
            held["status"] = "requested" if event["type"] == "tool.requested" else "running"
    for held in calls.values():
        held["output"] = {"characters": len(held["output"]), "end": held["output"][-40:]}
        if has_ended and held["status"] in ("requested", "running"):
            held["status"] = "ended"
    return list(calls.values())


def _edits(events: Sequence[Any]) -> dict[str, list[str]]:
    """The calls that edited each file."""
    edits: dict[str, list[str]] = {}
    for event in events:
        if event["type"] == "tool.requested" and event["name"] in ("write_file", "edit_file"):
            edits.setdefault(event["args"]["path"].removeprefix("./"), []).append(event["call_id"])
    return edits
