"""How large one answer of a model may be. A model, or its server, may go on without end, and what has come is held in
memory, stored and sent back with every further request. Imports the model library.
"""

from typing import Any, Final, cast

from pydantic_ai.exceptions import OutputTokenLimitExceeded
from pydantic_ai.messages import (
    ModelResponse,
    PartStartEvent,
    ToolCallPart,
)

from beray.server.agent.budget import BudgetExceeded
from beray.server.agent.conversation.compaction import TOKENS_PER_BYTE
from beray.server.agent.nesting import MOST_DEPTH, is_too_deep, is_value_too_deep
from beray.server.agent.wellformed import wellformed_arguments

MOST_ANSWER_BYTES: Final = 4_000_000  # over a million tokens; the longest answer of any model is some 128 000
MOST_CALLS: Final = 64  # of one answer; models make a handful at once, and each is a commit and may be a process
MOST_PARTS: Final = 256  # of one answer, of all kinds; the library looks at all of them as each one ends

REFUSAL_OF_MANY: Final = (
    f"Not run: you made more than {MOST_CALLS} calls in one answer, and none of them was run. Make fewer at once."
)

TOO_DEEP: Final = (
    f"(These arguments were nested more than {MOST_DEPTH} levels deep and have been left out. "
    "Call the tool again with the arguments that its schema asks for.)"
)


class TooManyCalls(OutputTokenLimitExceeded):
    """An answer has more calls than are taken: it is left there, for nobody knows how many would come."""

    def __init__(self) -> None:
        super().__init__(f"more than {MOST_CALLS} calls in one answer")


class AnswerBounds:
    """Counts one answer while it comes.

    Args:
        tokens_left: Of the run's limit; None: it has none.
        most_tokens: That limit, for what is said.
    """

    def __init__(self, tokens_left: int | None, most_tokens: int | None) -> None:
        self._tokens_left = tokens_left
        self._most_tokens = most_tokens
        self._bytes = self._parts = self._calls = 0

    def note(self, event: Any, size: int) -> None:
        """One event of the answer has come, with so many bytes of it.

        Raises:
            BudgetExceeded: The answer alone takes more than the run has left, as far as its size tells.
            OutputTokenLimitExceeded: It is longer than any answer may be.
            TooManyCalls: It has more calls than are taken.
        """
        if isinstance(event, PartStartEvent):
            self._note_part(event.part)
        self._bytes += size
        tokens = round(self._bytes * TOKENS_PER_BYTE)
        if self._tokens_left is not None and self._most_tokens is not None and tokens > self._tokens_left:
            used = self._most_tokens - self._tokens_left + tokens
            raise BudgetExceeded("tokens", used, self._most_tokens)
        if self._bytes > MOST_ANSWER_BYTES:
            raise OutputTokenLimitExceeded(f"more than {MOST_ANSWER_BYTES} bytes in one answer")

    def _note_part(self, part: Any) -> None:
        self._parts += 1
        self._calls += isinstance(part, ToolCallPart)
        if self._calls > MOST_CALLS:
            raise TooManyCalls
        if self._parts > MOST_PARTS:
            raise OutputTokenLimitExceeded(f"more than {MOST_PARTS} parts in one answer")


def tidy_arguments(answer: ModelResponse) -> None:
    """Make arguments such as can be read and stored.

    Words, which are no JSON, take the place of those that are nested too deep: such a call is refused.
    """
    for part in answer.parts:
        if not isinstance(part, ToolCallPart) or part.args is None:
            continue
        is_deep = is_too_deep(part.args) if isinstance(part.args, str) else is_value_too_deep(part.args)
        part.args = TOO_DEEP if is_deep else wellformed_arguments(cast(str | dict[str, Any], part.args))
