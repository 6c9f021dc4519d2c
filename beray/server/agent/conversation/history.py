"""What a run begins with: its goal, or what was said and done in the runs before it. Imports the model library.

A run that was stopped, failed or died may have left calls without results, which no model takes: each gets what the
record of tool calls knows of it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence

from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from sqlalchemy import Connection

from beray.server.agent.conversation.images import from_record, with_pictures
from beray.server.agent.conversation.notes import ANSWERED, as_said
from beray.server.agent.run import AgentRun
from beray.server.agent.wellformed import wellformed
from beray.server.db import agent_runs
from beray.server.db import tasks as task_queries
from beray.server.db.agent_runs import CheckpointRow, ToolCallRow
from beray.server.db.messages import find_answer

Result = str | list[str | BinaryContent]

_CUT_SHORT = (
    "Interrupted: the run ended while this call was at work, and its outcome is unknown. "
    "Inspect what it left behind before you decide to repeat it."
)
_NOT_RUN = "Not run: the run had ended before."


async def first_messages(run: AgentRun) -> list[ModelMessage]:
    """The conversation that leads into the run's first turn; of a further run without the message that began it."""
    if run.run == 1 or run.model.kind == "rules":  # fixed rules know nothing but the goal
        return [_said(run.goal)]
    found = await run.database.read(lambda connection: agent_runs.load_last_before(connection, run.task_id, run.run))
    messages = [] if found is None else await asyncio.to_thread(_parsed, found[1])
    if found is None or not messages:  # no run before has come to its first turn
        return [_said(await run.database.read(lambda connection: task_queries.get_goal(connection, run.task_id)))]
    return await _closed(run, found[0], messages)


def with_said(messages: list[ModelMessage], texts: list[str]) -> list[ModelMessage]:
    """The conversation, and what the user says now, as parts of its last request."""
    parts = [_words(text) for text in texts]
    if not parts:
        return messages
    if messages and isinstance(messages[-1], ModelRequest):
        return [*messages[:-1], ModelRequest(parts=[*messages[-1].parts, *parts])]
    return [*messages, ModelRequest(parts=parts)]


def _said(text: str) -> ModelRequest:
    return ModelRequest(parts=[_words(text)])


def _words(text: str) -> UserPromptPart:
    return UserPromptPart(as_said(wellformed(text)))


def _parsed(row: CheckpointRow) -> list[ModelMessage]:
    return ModelMessagesTypeAdapter.validate_json(row.messages)


async def _closed(run: AgentRun, before: int, messages: list[ModelMessage]) -> list[ModelMessage]:
    """The conversation of the run before, with a result for each call of its last answer."""
    last = messages[-1]
    calls = [part for part in last.parts if isinstance(part, ToolCallPart)] if isinstance(last, ModelResponse) else []
    if not calls:
        return messages
    ids = [part.tool_call_id for part in calls]
    kept, answers = await run.database.read(lambda connection: _look(connection, run.task_id, before, ids))
    results = await asyncio.to_thread(_results, kept, answers)  # they may hold megabytes of pictures
    returns = [
        ToolReturnPart(part.tool_name, results.get(part.tool_call_id, _NOT_RUN), part.tool_call_id) for part in calls
    ]
    return [*messages, ModelRequest(parts=returns)]


def _look(
    connection: Connection, task_id: int, run: int, call_ids: Sequence[str]
) -> tuple[list[ToolCallRow], dict[str, str]]:
    """What is recorded of calls, and what the user has answered to those that had no result yet."""
    kept = agent_runs.find_tool_calls(connection, task_id, run, call_ids)
    answers = {}
    for row in kept:
        answer = find_answer(connection, task_id, run, row.call_id) if row.result is None else None
        if answer is not None:  # the run ended before it could go on with it
            answers[row.call_id] = answer.content
    return kept, answers


def _results(kept: Sequence[ToolCallRow], answers: Mapping[str, str]) -> dict[str, Result]:
    return {row.call_id: _result(row, answers.get(row.call_id)) for row in kept}


def _result(row: ToolCallRow, answer: str | None) -> Result:
    if row.result is not None:
        recorded = json.loads(row.result)
        return with_pictures(recorded["text"], row.call_id, from_record(recorded))
    return _CUT_SHORT if answer is None else f"{ANSWERED}\n{answer}"
