"""SQL of what an agent remembers of a run: its checkpoint and its tool calls.

Every change is made in the transaction of the event that shows it, so that log and memory can't disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

_LOAD = text("SELECT turn, messages, usage, state FROM checkpoint WHERE task_id = :task_id AND run = :run")
_LOAD_USAGE = text("SELECT usage FROM checkpoint WHERE task_id = :task_id AND run = :run")
_LOAD_LAST_BEFORE = text(
    "SELECT run, turn, messages, usage, state FROM checkpoint WHERE task_id = :task_id AND run < :run"
    " ORDER BY run DESC LIMIT 1"
)
_SAVE = text(
    "INSERT INTO checkpoint (task_id, run, turn, messages, usage, state)"
    " VALUES (:task_id, :run, :turn, :messages, :usage, :state)"
    " ON CONFLICT (task_id, run) DO UPDATE SET turn = excluded.turn, messages = excluded.messages,"
    " usage = excluded.usage, state = excluded.state"
)
_SAVE_STATE = text("UPDATE checkpoint SET usage = :usage, state = :state WHERE task_id = :task_id AND run = :run")
_SAVE_USAGE = text("UPDATE checkpoint SET usage = :usage WHERE task_id = :task_id AND run = :run")
_CALL = text(
    "SELECT call_id, name, started_at, finished_at, result FROM tool_call"
    " WHERE task_id = :task_id AND run = :run AND call_id = :call_id"
)
_RESULTS = text(
    "SELECT call_id, result FROM tool_call WHERE task_id = :task_id AND call_id IN :call_ids AND result IS NOT NULL"
).bindparams(bindparam("call_ids", expanding=True))
_CALLS = text(
    "SELECT call_id, name, started_at, finished_at, result FROM tool_call"
    " WHERE task_id = :task_id AND run = :run AND call_id IN :call_ids"
).bindparams(bindparam("call_ids", expanding=True))
_OPEN_CALL = text(
    "SELECT 1 FROM tool_call WHERE task_id = :task_id AND run = :run AND name = :name AND result IS NULL LIMIT 1"
)
_START_CALL = text(
    "INSERT INTO tool_call (task_id, run, call_id, name, started_at)"
    " VALUES (:task_id, :run, :call_id, :name, :started_at)"
)
_FINISH_CALL = text(
    "UPDATE tool_call SET finished_at = :finished_at, result = :result"
    " WHERE task_id = :task_id AND run = :run AND call_id = :call_id AND result IS NULL"
)


@dataclass(frozen=True)
class CheckpointRow:
    """Where a run continues.

    Attributes:
        turn: The turn `messages` lead into.
        messages: The conversation, as the model library's JSON.
        usage: JSON.
        state: JSON.
    """

    turn: int
    messages: bytes
    usage: str
    state: str


@dataclass(frozen=True)
class ToolCallRow:
    """One tool call; `finished_at` and `result` are None while it runs, or when a crash interrupted it."""

    call_id: str
    name: str
    started_at: int
    finished_at: int | None
    result: str | None


def load_checkpoint(connection: Connection, task_id: int, run: int) -> CheckpointRow | None:
    """The run's checkpoint, if it has come to one."""
    row = connection.execute(_LOAD, {"task_id": task_id, "run": run}).one_or_none()
    return None if row is None else CheckpointRow(row.turn, bytes(row.messages), row.usage, row.state)


def load_usage(connection: Connection, task_id: int, run: int) -> str | None:
    """The usage in the run's checkpoint, if it has come to one."""
    usage: str | None = connection.execute(_LOAD_USAGE, {"task_id": task_id, "run": run}).scalar_one_or_none()
    return usage


def load_last_before(connection: Connection, task_id: int, run: int) -> tuple[int, CheckpointRow] | None:
    """The last of the earlier runs that has come to a checkpoint, and that checkpoint."""
    row = connection.execute(_LOAD_LAST_BEFORE, {"task_id": task_id, "run": run}).one_or_none()
    return None if row is None else (row.run, CheckpointRow(row.turn, bytes(row.messages), row.usage, row.state))


def save_checkpoint(connection: Connection, task_id: int, run: int, row: CheckpointRow) -> None:
    """Replace the run's checkpoint."""
    connection.execute(
        _SAVE,
        {
            "task_id": task_id,
            "run": run,
            "turn": row.turn,
            "messages": row.messages,
            "usage": row.usage,
            "state": row.state,
        },
    )


def save_state(connection: Connection, task_id: int, run: int, *, usage: str, state: str) -> None:
    """Replace usage and state of the run's checkpoint; its messages stay."""
    connection.execute(_SAVE_STATE, {"task_id": task_id, "run": run, "usage": usage, "state": state})


def save_usage(connection: Connection, task_id: int, run: int, usage: str) -> None:
    """Replace the usage of the run's checkpoint."""
    connection.execute(_SAVE_USAGE, {"task_id": task_id, "run": run, "usage": usage})


def find_tool_call(connection: Connection, task_id: int, run: int, call_id: str) -> ToolCallRow | None:
    """What is recorded of a tool call."""
    row = connection.execute(_CALL, {"task_id": task_id, "run": run, "call_id": call_id}).one_or_none()
    return None if row is None else ToolCallRow(row.call_id, row.name, row.started_at, row.finished_at, row.result)


def has_open_call(connection: Connection, task_id: int, run: int, name: str) -> bool:
    """Whether a call of a tool was started, and has not come to its end."""
    values = {"task_id": task_id, "run": run, "name": name}
    return connection.execute(_OPEN_CALL, values).first() is not None


def find_results(connection: Connection, task_id: int, call_ids: Sequence[str]) -> dict[str, str]:
    """The recorded results of calls of any run of the task, by their ids; ids tell runs apart."""
    rows = connection.execute(_RESULTS, {"task_id": task_id, "call_ids": list(call_ids)})
    return {row.call_id: row.result for row in rows}


def find_tool_calls(connection: Connection, task_id: int, run: int, call_ids: Sequence[str]) -> list[ToolCallRow]:
    """What is recorded of these calls of a run."""
    rows = connection.execute(_CALLS, {"task_id": task_id, "run": run, "call_ids": list(call_ids)})
    return [ToolCallRow(*row) for row in rows]


def start_tool_call(connection: Connection, task_id: int, run: int, call: ToolCallRow) -> None:
    """Record that a call's body begins to run."""
    connection.execute(
        _START_CALL,
        {"task_id": task_id, "run": run, "call_id": call.call_id, "name": call.name, "started_at": call.started_at},
    )


def finish_tool_call(
    connection: Connection, task_id: int, run: int, call_id: str, *, finished_at: int, result: str
) -> None:
    """Record how a call ended; what is recorded stays."""
    connection.execute(
        _FINISH_CALL,
        {"task_id": task_id, "run": run, "call_id": call_id, "finished_at": finished_at, "result": result},
    )
