"""One small request to a model, made as a turn makes it: streamed, and with a tool. Imports the model library."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from beray.protocol.types import TaskError
from beray.server.agent import faults
from beray.server.agent.building import build_model, close_model
from beray.server.agent.models import ModelChoice
from beray.server.agent.unreadable import stumbling
from beray.server.agent.wellformed import wellformed
from beray.server.messages import Language, text

MOST_TOKENS: Final = 2000  # "OK" is one; a model that thinks first may take some hundreds

_QUESTION: Final = "This is a check of the connection. Answer with the word OK and nothing else. Call no tool."
_TOOL: Final = ToolDefinition(  # a model that can't be given tools can do no task, and its server says so here
    name="note",
    description="Keep a note. Not needed now.",
    parameters_json_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)


@dataclass(frozen=True)
class Answered:
    """What the model said, and how long the whole answer took."""

    text: str
    latency_ms: int


class NoAnswer(Exception):
    """The model's answer held nothing."""


async def ask_for_a_word(choice: ModelChoice) -> Answered:
    """Ask the model behind `choice`, which is not rules, for one word.

    Raises:
        AgentRunError: It could not be asked, or did not answer.
        NoAnswer: The answer was empty.
    """
    model = await asyncio.to_thread(build_model, choice, "en")
    try:
        began = time.monotonic()
        with stumbling():
            async with model_request_stream(
                model,
                [ModelRequest.user_text_prompt(_QUESTION)],
                model_settings=ModelSettings(timeout=choice.timeout_seconds, max_tokens=MOST_TOKENS, max_retries=0),
                model_request_parameters=ModelRequestParameters(function_tools=[_TOOL]),
            ) as stream:
                async for _ in stream:
                    pass
                answer = stream.get()
        return Answered(_said(answer), round((time.monotonic() - began) * 1000))
    finally:
        await close_model(choice, model)


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
    return faults.describe(error, choice, language)


def _said(answer: ModelResponse) -> str:
    """The answer in words; a model that calls the tool all the same, or thinks to the limit, has answered too."""
    said = wellformed(answer.text or "").strip()
    if not said and answer.finish_reason != "length" and not any(isinstance(p, ToolCallPart) for p in answer.parts):
        raise NoAnswer
    return said
