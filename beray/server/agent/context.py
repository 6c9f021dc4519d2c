"""The room a conversation takes in the model's context, and when and how it is made smaller.

Imports the model library.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ModelResponse

from beray.server.agent import compaction
from beray.server.agent.progress import Progress

OVERHEAD_TOKENS: Final = 3000  # instructions and tools, before the provider has measured them

Summarise = Callable[[str], Awaitable[str]]
"""`await summarise(record)`: a summary of the record, by the model."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A conversation made smaller, and what is told of it."""

    messages: list[ModelMessage]
    fields: dict[str, Any]


class ContextRoom:
    """Watches one run's conversation.

    Args:
        progress: The run's memory; holds the latest measurement.
        size_tokens: What the model takes; None: not known, so room is made only when the model has refused.
    """

    def __init__(self, progress: Progress, size_tokens: int | None) -> None:
        self._progress = progress
        self._size = size_tokens

    def note_measured(self, asked: Sequence[ModelMessage], answer: ModelResponse) -> None:
        """The provider has said how much the request and the answer were."""
        tokens = answer.usage.input_tokens + answer.usage.output_tokens
        if answer.usage.input_tokens:
            self._progress.measured = [tokens, compaction.count_bytes([*asked, answer])]

    def tokens(self, messages: Sequence[ModelMessage]) -> int:
        """What the conversation takes, as far as is known."""
        size = compaction.count_bytes(messages)
        if self._progress.measured is None:
            return OVERHEAD_TOKENS + round(size * compaction.TOKENS_PER_BYTE)
        tokens, measured = self._progress.measured
        return max(round(tokens + (size - measured) * compaction.TOKENS_PER_BYTE), 0)

    async def make(self, messages: list[ModelMessage], summarise: Summarise, *, is_forced: bool = False) -> Made | None:
        """The conversation made smaller, if it takes too much, or by force; None if it is well, or can't be."""
        before = self.tokens(messages)
        if is_forced and self._size is None:
            self._size = before  # what was refused is more than the model takes: from now on that is known
        if not is_forced and (self._size is None or before < self._size * compaction.CLEAR_AT):
            return None
        cleared = compaction.clear_results(messages)
        left = self.tokens(cleared.messages)
        if not is_forced and self._size is not None and left < self._size * compaction.SUMMARISE_AT:
            return self._made(before, cleared.messages, how="cleared", results=cleared.count) if cleared.count else None
        parts = compaction.split(cleared.messages, late_bytes=self._late_bytes())
        if parts is None:
            return self._made(before, cleared.messages, how="cleared", results=cleared.count) if cleared.count else None
        original = messages[: len(parts.old)]
        summary, how = await self._summary(original, summarise)
        joined = parts.join(summary)
        return self._made(before, joined, how=how, results=cleared.count, messages=len(parts.old))

    async def _summary(self, old: list[ModelMessage], summarise: Summarise) -> tuple[str, str]:
        size = self._size or self.tokens(old)
        most = round(size * compaction.RECORD_SHARE / compaction.TOKENS_PER_BYTE)
        record = compaction.record(old, self._progress.plan, most_characters=most)
        try:
            summary = await summarise(record)
        except AgentRunError as error:  # the run goes on with less: what matters is that it goes on
            log.warning("a conversation could not be summarised: %s", error)
            summary = ""
        if summary:
            return f"{compaction.SUMMARY}\n{summary}", "summarised"
        return compaction.known_facts(old, self._progress.plan), "dropped"

    def _late_bytes(self) -> int:
        size = self._size or OVERHEAD_TOKENS * 10
        return round(size * compaction.LATE_SHARE / compaction.TOKENS_PER_BYTE)

    def _made(self, before: int, made: list[ModelMessage], *, how: str, results: int, messages: int = 0) -> Made:
        after = self.tokens(made)
        fields = {
            "before": before,
            "after": after,
            "how": how,
            "dropped": {"tool_results": results, "messages": messages},
        }
        return Made(made, fields)
