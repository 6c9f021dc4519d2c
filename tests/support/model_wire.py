"""What an answer of the scripted model looks like on a provider's wire; OpenAI's is here."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """An answer, in OpenAI's words.

    Attributes:
        model: Its name, as it was asked for.
        deltas: The first tells the role, each other a piece of text or of a tool call.
        usage: Tokens in and out; None: not told.
        cached: Of the tokens in, those said to have been cached.
        reason: Why it ended.
    """

    model: str
    deltas: list[dict[str, Any]]
    usage: tuple[int, int] | None
    cached: int
    reason: str


@dataclass(frozen=True)
class Wire:
    """How a provider says it.

    Attributes:
        content: A frame for each delta, so that a cut after so many means the same on every wire.
        end: The frames that close an answer that is whole.
        garbled: A frame that holds no JSON.
        error: Status and body of the error that it gives where OpenAI would give these.
    """

    content: Callable[[Said], Iterator[bytes]]
    end: Callable[[Said], Iterator[bytes]]
    garbled: bytes
    error: Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]


def _content(said: Said) -> Iterator[bytes]:
    for delta in said.deltas:
        yield _frame(said, [{"index": 0, "delta": delta, "finish_reason": None}])


def _end(said: Said) -> Iterator[bytes]:
    yield _frame(said, [{"index": 0, "delta": {}, "finish_reason": said.reason}])
    if said.usage is not None:
        yield _frame(
            said,
            [],
            {
                "prompt_tokens": said.usage[0],
                "completion_tokens": said.usage[1],
                "total_tokens": sum(said.usage),
                "prompt_tokens_details": {"cached_tokens": said.cached},
            },
        )
    yield b"data: [DONE]\n\n"


def _frame(said: Said, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": said.model,
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


OPENAI = Wire(_content, _end, b"data: {garbled\n\n", lambda status, body: (status, body))
