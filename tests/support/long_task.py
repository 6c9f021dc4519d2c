"""A finished task with as many events as a long run leaves, put straight into a server's database."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import delete, insert, select, update

from beray.protocol.sse import encode_event
from beray.server.db.sqlite import sqlite_engine
from beray.server.db.tables import event, task
from beray.server.events.log import frame_body
from tests.support.server import ServerProcess

PIECES = (
    "I looked at what the command printed, and it is as it should be. ",
    "Next I read the following part of the list, compare it with what is there already, and write down ",
    "**what differs**.\n\nThen I go on with the next one.",
)


def lengthen(server: ServerProcess, task_id: int, *, events: int) -> None:
    """Have a task that has ended have at least so many events: whole steps come before its last event."""
    engine = sqlite_engine(server.data_dir / "beray.db")
    with engine.begin() as connection:
        frames = connection.scalars(select(event.c.frame).where(event.c.task_id == task_id).order_by(event.c.seq)).all()
        *beginning, end = (orjson.loads(frame_body(frame)) for frame in frames)
        steps = map(_step, itertools.count(end["usage"]["requests"] + 1))
        while len(beginning) + 1 < events:
            beginning += next(steps)
        usage = beginning[-1]["usage"]
        bodies = [*beginning, {**end, "usage": usage}]
        rows = [_row(task_id, seq, {**body, "at": end["at"]}) for seq, body in enumerate(bodies, start=1)]
        connection.execute(delete(event).where(event.c.task_id == task_id))
        connection.execute(insert(event), rows)
        connection.execute(update(task).where(task.c.id == task_id).values(last_seq=len(rows), usage=json.dumps(usage)))
    engine.dispose()


def _row(task_id: int, seq: int, body: dict[str, Any]) -> dict[str, Any]:
    body = {**body, "v": 1, "seq": seq, "task_id": task_id}
    return {"task_id": task_id, "seq": seq, "frame": encode_event(seq, body["type"], orjson.dumps(body))}


def _step(number: int) -> Iterator[dict[str, Any]]:
    """The bodies of the events of a step: text, a command with output in colours, and a file."""
    message = {"message_id": f"long-{number}"}
    call = {"call_id": f"long-{number}"}
    command = f"make part-{number}"
    called = {**call, "name": "shell", "args": {"command": command}, "title": command}
    usage = {"requests": number, "tool_calls": number, "input_tokens": 100 * number, "output_tokens": 20 * number}
    step = {"step": number, "usage": {**usage, "cost_usd": None}}
    output = "".join(f"\x1b[32mok\x1b[0m line {line} of part {number}\n" for line in range(20))
    yield {"type": "step.started", **step}
    for piece in PIECES:
        yield {"type": "text.delta", **message, "delta": piece}
    yield {"type": "text.done", **message, "text": "".join(PIECES)}
    yield {"type": "tool.requested", **called}
    yield {"type": "tool.started", **called}
    yield {"type": "tool.output", **call, "stream": "stdout", "delta": output, "truncated": False}
    yield {"type": "file.changed", "path": f"out/part-{number:04}.txt", "change": "created", "size": 100 + number}
    told = {"ok": True, "summary": "exit 0", "exit_code": 0, "duration_ms": 40 + number % 7, "truncated": False}
    yield {"type": "tool.finished", **call, **told}
    yield {"type": "step.finished", **step}
