"""Scripts for the scripted server: the events of a task as the contract has them."""

from typing import Any

from tests.support.fake_server import NO_USAGE, Script


def tool(
    call_id: str, name: str, title: str, *, output: str = "", exit_code: int | None = 0, summary: str = "", ms: int = 41
) -> Script:
    """One tool call, from requested to finished."""
    call = {"call_id": call_id, "name": name, "args": {}, "title": title}
    shown: Script = [
        {"type": "tool.output", "call_id": call_id, "stream": "stdout", "delta": output, "truncated": False}
    ]
    return [
        {"type": "tool.requested", **call},
        {"type": "tool.started", **call},
        *(shown if output else []),
        {
            "type": "tool.finished",
            "call_id": call_id,
            "ok": exit_code in {None, 0},
            "summary": summary,
            "exit_code": exit_code,
            "duration_ms": ms,
            "truncated": False,
        },
    ]


def said(message_id: str, *deltas: str) -> Script:
    """A text in pieces."""
    pieces: Script = [{"type": "text.delta", "message_id": message_id, "delta": delta} for delta in deltas]
    return [*pieces, {"type": "text.done", "message_id": message_id, "text": "".join(deltas)}]


def finished(status: str = "completed", **fields: Any) -> dict[str, Any]:
    """The last event."""
    usual = {"result": None, "error": None, "usage": NO_USAGE, "files": [], "files_total": 0}
    return {"type": "task.finished", "status": status, **usual, **fields}


BEGINNING: Script = [
    {"type": "task.created", "status": "queued", "model": "beray:rules", "model_kind": "rules"},
    {"type": "task.started", "status": "running", "model": "beray:rules", "model_kind": "rules", "run": 1},
    {"type": "step.started", "step": 1},
]

HELLO_WORLD: Script = [
    *BEGINNING,
    *said("m1", "I'll write a small script, ", "run it, and check the output."),
    *tool("c1", "write_file", "hello.py", exit_code=None, summary="+1 line", ms=4),
    *tool("c2", "shell", "python hello.py", output="hello world\n"),
    {"type": "step.started", "step": 2},
    *said("m2", "Done: hello.py prints the greeting."),
    finished(
        result="Done: hello.py prints the greeting.",
        usage={
            "requests": 2,
            "tool_calls": 2,
            "input_tokens": 1834,
            "output_tokens": 212,
            "cost_usd": 0.0041,
        },
        files=[{"path": "hello.py", "size": 83}],
        files_total=1,
    ),
]
