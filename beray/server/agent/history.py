"""What a run begins with: its goal, or what was said and done in the runs before it. Imports the model library.

A run that was stopped, failed or died may have left calls without results, which no model takes: each gets what the
record of tool calls knows of it.
"""

import json
from collections.abc import Mapping

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

from beray.server.agent.images import from_record, with_pictures
from beray.server.agent.notes import ANSWERED
from beray.server.agent.run import AgentRun
from beray.server.agent.wellformed import wellformed
from beray.server.db import agent_runs
from beray.server.db import tasks as task_queries
from beray.server.db.agent_runs import ToolCallRow
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
    return await run.database.read(lambda connection: _earlier(connection, run))


def with_said(messages: list[ModelMessage], texts: list[str]) -> list[ModelMessage]:
    """The conversation, and what the user says now, as parts of its last request."""
    parts = [UserPromptPart(wellformed(text)) for text in texts]
    if not parts:
        return messages
    if messages and isinstance(messages[-1], ModelRequest):
        return [*messages[:-1], ModelRequest(parts=[*messages[-1].parts, *parts])]
    return [*messages, ModelRequest(parts=parts)]


def _said(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(wellformed(text))])


def _earlier(connection: Connection, run: AgentRun) -> list[ModelMessage]:
    found = agent_runs.load_last_before(connection, run.task_id, run.run)
    messages = [] if found is None else ModelMessagesTypeAdapter.validate_json(found[1].messages)
    if found is None or not messages:  # no run before has come to its first turn
        return [_said(task_queries.get_goal(connection, run.task_id))]
    results = {
        row.call_id: _told(connection, run.task_id, found[0], row)
        for row in agent_runs.list_tool_calls(connection, run.task_id, found[0])
    }
    return _closed(messages, results)


def _told(connection: Connection, task_id: int, run: int, row: ToolCallRow) -> Result:
    if row.result is not None:
        kept = json.loads(row.result)
        return with_pictures(kept["text"], row.call_id, from_record(kept))
    answer = find_answer(connection, task_id, run, row.call_id)  # the run ended before it could go on with it
    return _CUT_SHORT if answer is None else f"{ANSWERED}\n{answer.content}"


def _closed(messages: list[ModelMessage], results: Mapping[str, Result]) -> list[ModelMessage]:
    """The conversation with a result for each call of its last answer."""
    last = messages[-1]
    if not isinstance(last, ModelResponse):
        return messages
    returns = [
        ToolReturnPart(part.tool_name, results.get(part.tool_call_id, _NOT_RUN), part.tool_call_id)
        for part in last.parts
        if isinstance(part, ToolCallPart)
    ]
    return [*messages, ModelRequest(parts=returns)] if returns else messages
