"""The room a conversation takes in the model's context, and when and how it is made smaller.

Imports the model library.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ModelResponse

from beray.server.agent.conversation import compaction, cutting, summary
from beray.server.agent.conversation.compaction import Cleared, Split
from beray.server.agent.models import faults
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


@dataclass(frozen=True)
class _Step:
    """A conversation on its way to be smaller.

    Attributes:
        how: `cleared`, `summarised` or `dropped`.
        results: How many results were cleared or cut.
        replaced: How many messages a summary took the place of.
        cut: How many results and messages were cut.
    """

    messages: list[ModelMessage]
    how: str
    results: int = 0
    replaced: int = 0
    cut: int = 0


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
        """The conversation made smaller, if it takes too much, or by force; None if it is well, or can't be.

        Raises:
            AgentRunError: The model that was to write the summary can't be had: nothing is lost then.
        """
        before = self.tokens(messages)
        if is_forced:  # what was refused is more than the model takes: from now on that is known
            self._size = before if self._size is None else min(self._size, before)
        if self._size is None or (not is_forced and before < self._size * compaction.CLEAR_AT):
            return None
        cleared = compaction.clear_results(messages)
        step = _Step(cleared.messages, "cleared", results=cleared.count)
        frees_much = before - self.tokens(step.messages) >= self._size * compaction.FREED_LEAST
        if not is_forced and not frees_much and before < self._size * compaction.SUMMARISE_AT:
            return None
        if is_forced or not frees_much or self._is_full(step.messages):
            step = await self._summarised(messages, cleared, summarise, is_forced=is_forced) or step
        if is_forced or self._is_full(step.messages):
            step = self._cut(step, is_forced=is_forced)
        return self._made(before, step)

    async def _summarised(
        self, messages: list[ModelMessage], cleared: Cleared, summarise: Summarise, *, is_forced: bool
    ) -> _Step | None:
        """The conversation with a summary in it; None: there is nothing to summarise, or it would gain too little."""
        parts = compaction.split(cleared.messages, late_bytes=self._late_bytes())
        if parts is None or not self._is_worth(cleared.messages, parts, is_forced=is_forced):
            return None
        count = len(parts.old)
        told, how = await self._told(messages[:count], summarise)
        made = parts.join(told)
        self._progress.summarised_to = self.tokens(made)
        if self.tokens(made) >= self.tokens(cleared.messages):  # the model has written much
            return None
        return _Step(made, how, results=sum(cleared.counts[count:]), replaced=count)

    def _is_worth(self, messages: list[ModelMessage], parts: Split, *, is_forced: bool) -> bool:
        """Whether a summary makes it much smaller, and it has grown since the one before, which may have been long.

        By force anything counts.
        """
        left, gain = self.tokens(messages), self._of_size(compaction.GAINED_LEAST)
        expected = self.tokens(parts.join("x" * summary.LIKELY_BYTES))
        if is_forced:
            return expected < left
        grown_to = min(self._progress.summarised_to, self._of_size(compaction.SUMMARISE_AT)) + gain
        return left - expected >= gain and left >= grown_to

    async def _told(self, old: list[ModelMessage], summarise: Summarise) -> tuple[str, str]:
        plan = self._progress.plan
        most = round(self._of_size(summary.RECORD_SHARE) / compaction.TOKENS_PER_BYTE)
        try:
            written = await summarise(summary.record(old, plan, most_characters=most))
        except AgentRunError as error:
            if not faults.is_of_request(error):
                raise  # the request that follows would fail too; without a summary the memory would be gone for good
            log.warning("a conversation could not be summarised: %s", error)
            written = ""
        if written:
            return summary.summarised(written, plan), "summarised"
        return summary.known_facts(old, plan), "dropped"

    def _cut(self, step: _Step, *, is_forced: bool) -> _Step:
        """What still does not fit, cut: results, and the user's words if nothing else helps."""
        before = self.tokens(step.messages)
        cut = cutting.cut_results(step.messages, self._excess_bytes(step.messages))
        if is_forced or before - self.tokens(cut.messages) >= self._of_size(compaction.GAINED_LEAST):
            step = replace(step, messages=cut.messages, results=step.results + cut.count, cut=cut.count)
        if is_forced or self._is_over(step.messages):
            cut = cutting.cut_words(step.messages, self._excess_bytes(step.messages))
            step = replace(step, messages=cut.messages, cut=step.cut + cut.count)
        return step

    def _is_full(self, messages: list[ModelMessage]) -> bool:
        return self.tokens(messages) >= self._of_size(compaction.SUMMARISE_AT)

    def _is_over(self, messages: list[ModelMessage]) -> bool:
        """Whether it is surely more than the model takes; what is not measured counts by its text alone."""
        sure = self.tokens(messages) - (OVERHEAD_TOKENS if self._progress.measured is None else 0)
        return sure > self._of_size(1.0)

    def _excess_bytes(self, messages: list[ModelMessage]) -> int:
        return round((self.tokens(messages) - self._of_size(compaction.FIT_AT)) / compaction.TOKENS_PER_BYTE)

    def _late_bytes(self) -> int:
        return round(self._of_size(compaction.LATE_SHARE) / compaction.TOKENS_PER_BYTE)

    def _of_size(self, share: float) -> float:
        assert self._size is not None, "room is made only in a context of known size"
        return self._size * share

    def _made(self, before: int, step: _Step) -> Made | None:
        """What came of it; None: nothing."""
        after = self.tokens(step.messages)
        if after >= before:
            return None
        fields = {
            "before": before,
            "after": after,
            "how": "cut" if step.cut and step.how == "cleared" else step.how,
            "dropped": {"tool_results": step.results, "messages": step.replaced},
        }
        return Made(step.messages, fields)
