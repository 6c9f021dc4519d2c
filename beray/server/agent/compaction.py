"""Keeps a conversation within the model's context.

From 70 % of it on, the results of old tool calls are cleared: they are the bulk, and can be had again. If that leaves
85 % or more, all but the latest turns is put into a summary, written by the model itself, or made of what is known if
it can't write one. The user's words, the plan and the latest turns stay as they are, and a call always keeps its
result, for a model refuses one without the other.

Sizes are counted in bytes; what has come since the provider's latest measurement is turned into tokens by a common
ratio. Imports the model library.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from beray.server.agent.notes import ANSWERED, NOTE, is_note

CLEAR_AT: Final = 0.70
SUMMARISE_AT: Final = 0.85
KEPT_RESULTS: Final = 6  # of tool calls, that are never cleared: what the model is just working with
KEPT_TURNS: Final = 4  # answers with their results that no summary takes in
CLEARED_LEAST: Final = 400  # bytes; clearing a shorter result gains nothing
LATE_SHARE: Final = 0.3  # of the context, that those may take; the latest is kept in any case
TOKENS_PER_BYTE: Final = 0.27  # of English and code, in UTF-8; a Chinese character, 3 bytes, is some 0.7 tokens
OTHER_BYTES: Final = 4000  # what a part that is no text counts: an image takes some 1000 tokens
TOLD_CHARACTERS: Final = 1500  # of one call or result in the record that is to be summarised
RECORD_SHARE: Final = 0.5  # of the context, that this record may take

CLEARED: Final = "[This result was removed to save room. Call the tool again if you need it.]"
SUMMARY: Final = NOTE + " to save room, the earlier part of this conversation was replaced by this summary."
LOST: Final = NOTE + " to save room, the earlier part of this conversation was removed. This is what is known of it."


@dataclass(frozen=True)
class Cleared:
    """A conversation without the results of old tool calls."""

    messages: list[ModelMessage]
    count: int


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
    return sum(_size(part) for message in messages for part in message.parts)


def clear_results(messages: Sequence[ModelMessage]) -> Cleared:
    """Clear the results of all tool calls but the latest."""
    results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    old = {id(part) for part in results[:-KEPT_RESULTS] if _size(part) >= CLEARED_LEAST and not _is_answer(part)}
    return Cleared([_without(message, old) for message in messages], len(old))


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


def _split_at(messages: Sequence[ModelMessage], start: int) -> Split:
    old = list(messages[:start])
    kept = [words for message in old for part in message.parts if (words := _users_words(part)) is not None]
    return Split(old, kept, list(messages[start:]))


def record(messages: Sequence[ModelMessage], plan: Sequence[dict[str, str]], *, most_characters: int) -> str:
    """What happened, as text for the summary; of too much of it the middle is left out."""
    lines = [f"PLAN: {item['text']} ({item['status']})" for item in plan]
    lines += [line for message in messages for part in message.parts for line in _told(part)]
    whole = "\n".join(lines)
    if len(whole) <= most_characters:
        return whole
    half = most_characters // 2
    return f"{whole[:half]}\n[… {len(whole) - 2 * half} characters left out …]\n{whole[-half:]}"


def known_facts(messages: Sequence[ModelMessage], plan: Sequence[dict[str, str]]) -> str:
    """What stands in for a summary where the model could write none."""
    calls = [part for message in messages for part in message.parts if isinstance(part, ToolCallPart)]
    lines = [LOST, *(f"- plan: {item['text']} ({item['status']})" for item in plan)]
    lines += [f"- called {call.tool_name} {_cut(call.args_as_json_str(), 200)}" for call in calls[-40:]]
    return "\n".join(lines)


def _without(message: ModelMessage, cleared: set[int]) -> ModelMessage:
    if not isinstance(message, ModelRequest) or not any(id(part) in cleared for part in message.parts):
        return message
    return replace(message, parts=[_cleared(part) if id(part) in cleared else part for part in message.parts])


def _cleared(part: ModelRequestPart) -> ModelRequestPart:
    assert isinstance(part, ToolReturnPart), "only results are cleared"
    return ToolReturnPart(part.tool_name, CLEARED, tool_call_id=part.tool_call_id, timestamp=part.timestamp)


def _users_words(part: Any) -> UserPromptPart | None:
    """What the user has said by themselves, or in answer to a question; None: it is somebody else's."""
    if _is_answer(part):
        return UserPromptPart(part.model_response_str())
    if not isinstance(part, UserPromptPart):
        return None
    return None if isinstance(part.content, str) and is_note(part.content) else part


def _is_answer(part: Any) -> bool:
    is_result = isinstance(part, ToolReturnPart) and part.tool_name == "ask_user"
    return is_result and part.model_response_str().startswith(ANSWERED)


def _size(part: Any) -> int:
    if isinstance(part, ToolCallPart):
        return len(part.tool_name) + _length(part.args_as_json_str())
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return _length(content)
    if isinstance(content, list | tuple):
        return sum(_length(piece) if isinstance(piece, str) else OTHER_BYTES for piece in content)
    return OTHER_BYTES


def _length(content: str) -> int:
    return len(content) if content.isascii() else len(content.encode("utf-8", "replace"))


def _told(part: Any) -> Iterator[str]:
    match part:
        case UserPromptPart():
            yield f"USER: {_cut(_as_text(part.content))}"
        case TextPart():
            yield f"AGENT: {_cut(part.content)}"
        case ThinkingPart():
            return
        case ToolCallPart():
            yield f"CALL {part.tool_name}: {_cut(part.args_as_json_str())}"
        case ToolReturnPart():
            yield f"RESULT: {_cut(part.model_response_str())}"


def _as_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(piece if isinstance(piece, str) else "[image]" for piece in content)


def _cut(content: str, most: int = TOLD_CHARACTERS) -> str:
    if len(content) <= most:
        return content
    return f"{content[: most // 3]} … {content[-2 * most // 3 :]}"
