"""Keeps a conversation within the model's context: what of it goes, and how much there is.

From 70 % of the context on, the results of old tool calls are cleared: they are the bulk, and can be had again. Each
change makes the provider's cache of the conversation's beginning worthless, so this waits until it frees a fifth of the
context. If it doesn't by 85 %, all but the latest turns is put into a summary (`summary.py`), unless that gains little.
What then still does not fit is cut (`cutting.py`). The user's words, the plan and the latest turns stay as they are as
long as that is possible, and a call always keeps its result, for a model refuses one without the other.

Sizes are counted in bytes; what has come since the provider's latest measurement is turned into tokens by a common
ratio. Imports the model library.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from beray.server.agent.conversation.notes import ANSWERED, is_note

CLEAR_AT: Final = 0.70
SUMMARISE_AT: Final = 0.85
FIT_AT: Final = 0.60  # what a conversation is cut down to that does not fit in another way
FREED_LEAST: Final = 0.20  # of the context, by clearing: the next clearing is to come late
GAINED_LEAST: Final = 0.10  # of the context, by a summary or a cut: less comes again with nearly every turn
KEPT_RESULTS: Final = 6  # of tool calls, that are never cleared: what the model is just working with
KEPT_TURNS: Final = 4  # answers with their results that no summary takes in
CLEARED_LEAST: Final = 400  # bytes; clearing a shorter result gains nothing
LATE_SHARE: Final = 0.3  # of the context, that those may take; the latest is kept in any case
TOKENS_PER_BYTE: Final = 0.27  # of English and code, in UTF-8; a Chinese character, 3 bytes, is some 0.7 tokens
OTHER_BYTES: Final = 4000  # what a part that is no text counts: an image takes some 1000 tokens

CLEARED: Final = "[This result was removed to save room. Call the tool again if you need it.]"


@dataclass(frozen=True)
class Cleared:
    """A conversation without the results of old tool calls.

    Attributes:
        counts: How many were cleared of each message.
    """

    messages: list[ModelMessage]
    counts: list[int]

    @property
    def count(self) -> int:
        """How many were cleared."""
        return sum(self.counts)


@dataclass(frozen=True)
class Split:
    """A conversation in parts.

    Attributes:
        old: What a summary is to take the place of.
        kept: User's words from `old`, in order.
        late: The latest turns; begin with the model's answer.
    """

    old: list[ModelMessage]
    kept: list[UserPromptPart]
    late: list[ModelMessage]

    def join(self, summary: str) -> list[ModelMessage]:
        """The conversation, with `summary` in the place of what was old."""
        first = ModelRequest(parts=[*self.kept, UserPromptPart(summary)])
        return [first, *self.late]


def count_bytes(messages: Iterable[ModelMessage]) -> int:
    """How much there is in a conversation."""
    return sum(size_of(part) for message in messages for part in message.parts)


def clear_results(messages: Sequence[ModelMessage]) -> Cleared:
    """Clear the results of all tool calls but the latest."""
    results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    old = {id(part) for part in results[:-KEPT_RESULTS] if size_of(part) >= CLEARED_LEAST and not is_answer(part)}
    counts = [sum(id(part) in old for part in message.parts) for message in messages]
    return Cleared([_without(message, old) for message in messages], counts)


def split(messages: Sequence[ModelMessage], *, late_bytes: int) -> Split | None:
    """The parts of a conversation that ends in a request; None if there is nothing old in it.

    The latest turns take up to `late_bytes`; one is kept in any case.
    """
    answers = [index for index, message in enumerate(messages) if isinstance(message, ModelResponse)]
    if len(answers) < 2:
        return None
    start = answers[-1]
    for index in reversed(answers[-KEPT_TURNS:]):
        if index == answers[0] or count_bytes(messages[index:]) > late_bytes:
            break
        start = index
    return _split_at(messages, start)


def is_answer(part: Any) -> bool:
    """Whether that is what the user has answered to a question."""
    is_result = isinstance(part, ToolReturnPart) and part.tool_name == "ask_user"
    return is_result and part.model_response_str().startswith(ANSWERED)


def is_users(part: Any) -> bool:
    """Whether the user has said that, by themselves or in answer to a question."""
    if isinstance(part, UserPromptPart):
        return not (isinstance(part.content, str) and is_note(part.content))
    return is_answer(part)


def size_of(part: Any) -> int:
    """How much there is in a part of a message, in bytes."""
    if isinstance(part, ToolCallPart):
        return len(part.tool_name) + length_of(part.args_as_json_str())
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return length_of(content)
    if isinstance(content, list | tuple):
        return sum(length_of(piece) if isinstance(piece, str) else OTHER_BYTES for piece in content)
    return OTHER_BYTES


def length_of(content: str) -> int:
    """The bytes of a text."""
    return len(content) if content.isascii() else len(content.encode("utf-8", "replace"))


def _split_at(messages: Sequence[ModelMessage], start: int) -> Split:
    old = list(messages[:start])
    kept = [_as_said(part) for message in old for part in message.parts if is_users(part)]
    return Split(old, kept, list(messages[start:]))


def _without(message: ModelMessage, cleared: set[int]) -> ModelMessage:
    if not isinstance(message, ModelRequest) or not any(id(part) in cleared for part in message.parts):
        return message
    return replace(message, parts=[_cleared(part) if id(part) in cleared else part for part in message.parts])


def _cleared(part: ModelRequestPart) -> ModelRequestPart:
    assert isinstance(part, ToolReturnPart), "only results are cleared"
    return ToolReturnPart(part.tool_name, CLEARED, tool_call_id=part.tool_call_id, timestamp=part.timestamp)


def _as_said(part: Any) -> UserPromptPart:
    return part if isinstance(part, UserPromptPart) else UserPromptPart(part.model_response_str())
