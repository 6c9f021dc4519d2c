"""What a model's answer has used, and what a request may use whose answer is not known. Imports the model library."""

from typing import Any

from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent

from beray.server.agent import compaction
from beray.server.agent.models import ModelChoice
from beray.server.agent.prices import PriceTable
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


def bytes_of(event: Any) -> int:  # the library's events are a union that grows
    """How much of an answer comes with an event of its stream."""
    if isinstance(event, PartStartEvent):
        piece: Any = getattr(event.part, "content", None) or getattr(event.part, "args", None)
    elif isinstance(event, PartDeltaEvent):
        piece = getattr(event.delta, "content_delta", None) or getattr(event.delta, "args_delta", None)
    else:
        return 0
    return len(piece.encode("utf-8", "replace")) if isinstance(piece, str) else 0
