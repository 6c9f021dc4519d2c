"""Cuts what makes a conversation too large for the model when nothing else helps, so that no task is stuck for ever.

Results of tools come first, from the oldest to the newest, and the user's words last, the longest of them: of each the
beginning and the end stay, and between them it is said how much is left out. Imports the model library.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart

from beray.server.agent.conversation.compaction import is_answer, is_users, size_of
from beray.server.agent.conversation.notes import NOTE

KEPT_BYTES: Final = 2000  # of a result or of the user's words, that stay in any case
MARK_BYTES: Final = 250  # that a cut must save at least: its mark takes nearly as much
RESULT_HEAD: Final = 0.25  # of what stays of a result; its end tells more, as with a command's output
WORDS_HEAD: Final = 0.5

_RESULT_MARK: Final = "[… {count} characters were left out here, to fit the model's context; ask for less at once …]"
_WORDS_MARK: Final = (
    "[" + NOTE + " {count} characters of this message of the user were left out here, for they do not fit this model's"
    " context. If the task needs them, say so, and ask for them in a file.]"
)
_MARKED: Final = re.compile(r"\n\[[^\[\]{}\n]{0,60}?(\d{1,12}) characters (?:were|of this message)[^\[\]\n]*\]\n")


@dataclass(frozen=True)
class Cut:
    """A conversation, cut.

    Attributes:
        count: Results or messages that were cut.
    """

    messages: list[ModelMessage]
    count: int


def cut_results(messages: Sequence[ModelMessage], excess_bytes: int) -> Cut:
    """Cut results of tools, the oldest first, until `excess_bytes` are saved, or as many as can be."""
    sizes: dict[int, int] = {}
    for part in (part for message in messages for part in message.parts):
        if excess_bytes <= 0:
            break
        if not isinstance(part, ToolReturnPart) or is_answer(part) or size_of(part) < KEPT_BYTES + MARK_BYTES:
            continue
        saved = min(max(excess_bytes, MARK_BYTES), size_of(part) - KEPT_BYTES)
        sizes[id(part)] = size_of(part) - saved
        excess_bytes -= saved
    return _changed(messages, sizes, _cut_result)


def cut_words(messages: Sequence[ModelMessage], excess_bytes: int) -> Cut:
    """Cut the longest of the user's words, down to the same size, until `excess_bytes` are saved, or as many as can."""
    words = [part for message in messages for part in message.parts if is_users(part)]
    level = _level([size_of(part) for part in words], excess_bytes)
    sizes = {id(part): level for part in words if size_of(part) >= level + MARK_BYTES}
    return _changed(messages, sizes, _cut_words)


def _level(sizes: Sequence[int], excess_bytes: int) -> int:
    """The size to which all that is larger is cut."""
    left = sum(sizes) - excess_bytes
    for count, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - count)
        if share < size:
            return max(share, KEPT_BYTES)
        left -= size
    return max(sizes, default=0)


def shorten(content: str, most_bytes: int, *, head: float, mark: str) -> str:
    """`content` in about so many bytes: its beginning and end, and between them `mark` with the count of characters."""
    encoded = content.encode("utf-8", "replace")
    if len(encoded) <= most_bytes:  # a picture with few words
        return content
    first = encoded[: round(most_bytes * head)].decode("utf-8", "ignore")
    last = encoded[len(encoded) - round(most_bytes * (1 - head)) :].decode("utf-8", "ignore")
    middle = content[len(first) : len(content) - len(last)]
    before = [(int(found[1]), len(found[0])) for found in _MARKED.finditer(middle)]  # it may have been cut before
    count = len(middle) + sum(missing - length for missing, length in before)
    return f"{first}\n{mark.format(count=count)}\n{last}"


def _cut_result(part: Any, most_bytes: int) -> Any:
    content = shorten(_text_of(part), most_bytes, head=RESULT_HEAD, mark=_RESULT_MARK)
    return replace(part, content=content)


def _cut_words(part: Any, most_bytes: int) -> Any:
    return replace(part, content=shorten(_text_of(part), most_bytes, head=WORDS_HEAD, mark=_WORDS_MARK))


def _text_of(part: Any) -> str:
    if isinstance(part.content, list | tuple):
        return "\n".join(piece if isinstance(piece, str) else "[A picture was here.]" for piece in part.content)
    return part.content if isinstance(part.content, str) else str(part.model_response_str())


def _changed(messages: Sequence[ModelMessage], sizes: dict[int, int], cut: Callable[[Any, int], Any]) -> Cut:
    def changed(message: ModelMessage) -> ModelMessage:
        if not isinstance(message, ModelRequest) or not any(id(part) in sizes for part in message.parts):
            return message
        return replace(
            message, parts=[cut(part, sizes[id(part)]) if id(part) in sizes else part for part in message.parts]
        )

    return Cut([changed(message) for message in messages], len(sizes))
