"""Answers whose JSON has another form than the provider's protocol says. Imports the model library.

The library trusts the form, and stumbles over another with whatever error that gives. It is the model's server that is
at fault, as with an answer that is no JSON at all, so it is tried again or left for a fallback like that.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Final, TypeVar

from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse

T = TypeVar("T")

_STUMBLES: Final = (AttributeError, TypeError, LookupError, ValueError, AssertionError, RecursionError)

log = logging.getLogger(__name__)


@asynccontextmanager
async def readable(
    stream: AbstractAsyncContextManager[StreamedResponse],
) -> AsyncIterator[tuple[StreamedResponse, AsyncIterator[ModelResponseStreamEvent]]]:
    """The stream, and what it gives.

    Only what goes wrong in the library counts as unreadable, not what goes wrong where the events are used.

    Raises:
        UnexpectedModelBehavior: What came can't be read.
    """
    async with AsyncExitStack() as stack:
        with stumbling():
            opened = await stack.enter_async_context(stream)
        yield opened, await stack.enter_async_context(aclosing(_each(opened)))


async def _each(events: AsyncIterable[T]) -> AsyncGenerator[T, None]:
    with stumbling():
        async for event in events:
            yield event


@contextmanager
def stumbling() -> Iterator[None]:
    """A block in which the library reads what a model's server has sent.

    Raises:
        UnexpectedModelBehavior: It can't be read.
    """
    try:
        yield
    except _STUMBLES as error:
        log.warning("a model's answer could not be read", exc_info=True)
        raise UnexpectedModelBehavior(f"the answer has a form that is not the protocol's ({error})") from error
