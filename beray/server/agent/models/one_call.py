"""One small request to a model, made as a turn makes it: streamed, and with a tool. Imports the model library."""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Final

from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import AgentRunError, ModelRequestTimeout
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from beray.protocol.types import TaskError
from beray.server.agent.models import costs, faults
from beray.server.agent.models.building import build_model
from beray.server.agent.models.checking import MOST_OUTPUT_TOKENS
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.models.unreadable import stumbling
from beray.server.agent.wellformed import wellformed
from beray.server.db.usage import UsedSums
from beray.server.messages import Language, text

_QUESTION: Final = "This is a check of the connection. Answer with the word OK and nothing else. Call no tool."
_TOOL: Final = ToolDefinition(  # a model that can't be given tools can do no task, and its server says so here
    name="note",
    description="Keep a note. Not needed now.",
    parameters_json_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)


@dataclass(frozen=True)
class Answered:
    """What the model said, how long the whole answer took, and what it used, if that is known."""

    text: str
    latency_ms: int
    used: UsedSums | None


class NoAnswer(Exception):
    """The model's answer held nothing; `used` as with one that does."""

    def __init__(self, used: UsedSums | None) -> None:
        super().__init__("the model's answer held nothing")
        self.used = used


async def ask_for_a_word(choice: ModelChoice, prices: PriceTable) -> Answered:
    """Ask the model behind `choice`, which is not rules, for one word.

    Raises:
        AgentRunError: It could not be asked, or did not answer.
        NoAnswer: The answer was empty.
    """
    connections = ModelConnections()
    try:
        model = await asyncio.to_thread(build_model, choice, "en", connections=connections)
        began = time.monotonic()
        with stumbling():
            async with model_request_stream(
                model,
                [ModelRequest.user_text_prompt(_QUESTION)],
                model_settings=ModelSettings(
                    timeout=choice.timeout_seconds, max_tokens=MOST_OUTPUT_TOKENS, max_retries=0
                ),
                model_request_parameters=ModelRequestParameters(function_tools=[_TOOL]),
            ) as stream:
                async for _ in stream:
                    pass
                answer = stream.get()
        took_ms = round((time.monotonic() - began) * 1000)
        used = _used(answer, choice, prices)
        if _is_nothing(answer):
            raise NoAnswer(used)
        return Answered(_said(answer), took_ms, used)
    finally:
        await connections.close()


def describe(error: Exception, choice: ModelChoice, language: Language, *, seconds: int) -> TaskError:
    """What is said of a check that failed; `seconds` is how long it had."""
    if isinstance(error, NoAnswer):
        return {
            "code": "model_empty",
            "message": text("model_empty", language, model=choice.name),
            "hint": text("model_empty_hint", language),
            "retryable": True,
        }
    if isinstance(error, TimeoutError):
        error = ModelRequestTimeout(choice.name, seconds)
    return faults.describe(error, choice, language, is_check=True)


def used_by(answered: Answered | None, error: Exception | None) -> UsedSums | None:
    """What a call that ended so has used; None: that can't be known."""
    if answered is not None:
        return answered.used
    if isinstance(error, NoAnswer):
        return error.used
    was_sent = isinstance(error, AgentRunError | TimeoutError) and not faults.was_refused(error)
    return None if was_sent else UsedSums(requests=1)


def _used(answer: ModelResponse, choice: ModelChoice, prices: PriceTable) -> UsedSums | None:
    if not costs.is_told(answer):
        return None
    cost = costs.cost_of(answer, choice, prices)
    return replace(costs.tokens_of(answer), requests=1, cost_usd=cost or 0.0, unpriced=int(cost is None))


def _said(answer: ModelResponse) -> str:
    return wellformed(answer.text or "").strip()


def _is_nothing(answer: ModelResponse) -> bool:
    """Whether it holds nothing; a model that calls the tool all the same, or thinks to the limit, has answered."""
    has_call = any(isinstance(part, ToolCallPart) for part in answer.parts)
    return not _said(answer) and answer.finish_reason != "length" and not has_call
