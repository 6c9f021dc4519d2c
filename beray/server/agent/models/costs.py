"""What a model's answer has used, and what a request may use whose answer is not known. Imports the model library."""

import json
from typing import Any, Final

from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent

from beray.server.agent.conversation import compaction
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.nesting import is_value_too_deep
from beray.server.agent.progress import Estimate
from beray.server.db.usage import UsedSums


def is_told(answer: ModelResponse) -> bool:
    """Whether the model's server has said what the answer took."""
    return bool(answer.usage.input_tokens or answer.usage.output_tokens)


def tokens_of(answer: ModelResponse) -> UsedSums:
    """The tokens of a request and its answer, as its server has told them."""
    usage = answer.usage
    return UsedSums(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        output_tokens=usage.output_tokens,
    )


def cost_of(answer: ModelResponse, model: ModelChoice, prices: PriceTable) -> float | None:
    """What an answer that tells its tokens costs, in US dollars; None: not known."""
    usage = answer.usage
    own = prices.find(model.name)
    if own is not None:
        return own.of(
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cache_read_tokens,
            output_tokens=usage.output_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
    if model.is_own_url:  # the library's prices are of providers' own servers
        return None
    if usage.cost is not None:
        return float(usage.cost)
    try:
        return float(answer.cost().total_price)
    except (LookupError, ValueError):
        return None


def estimate(model: ModelChoice, prices: PriceTable, *, input_tokens: int = 0, output_tokens: int = 0) -> Estimate:
    """What so many tokens of the model count for limits."""
    if model.kind == "rules":
        return Estimate(is_free=True)
    cost = prices.estimate(model, input_tokens=input_tokens, output_tokens=output_tokens)
    return Estimate(input_tokens + output_tokens, cost or 0.0, is_free=prices.is_free(model))


def tokens_in(size: int) -> int:
    """About how many tokens so many bytes of text are."""
    return round(size * compaction.TOKENS_PER_BYTE)


_CONTENT: Final = ("content", "content_delta", "signature_delta", "tool_name_delta", "args", "args_delta")


def bytes_of(event: Any) -> int:  # the library's events are a union that grows
    """How much of an answer comes with an event of its stream."""
    if isinstance(event, PartStartEvent):
        return sum(_length(getattr(event.part, name, None)) for name in _CONTENT)
    if isinstance(event, PartDeltaEvent):
        return sum(_length(getattr(event.delta, name, None)) for name in _CONTENT)
    return 0


def _length(piece: Any) -> int:
    if isinstance(piece, str):
        return compaction.length_of(piece)
    is_value = isinstance(piece, dict | list) and not is_value_too_deep(piece)  # what is too deep is never kept
    return len(json.dumps(piece, default=str)) if is_value else 0
