"""`AsyncBeRayClient` behind the calls of the synchronous one, so that one test covers both."""

import asyncio
import contextvars
import inspect
from collections.abc import Iterator
from typing import Any, Self

from beray.async_client import AsyncBeRayClient


class BlockingClient:
    """An asynchronous client with an event loop of its own, which runs while a call does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncBeRayClient(*arguments, **options)
        self._runner = asyncio.Runner()
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        if not inspect.ismethod(member):
            return member

        def call(*arguments: Any, **options: Any) -> Any:
            result = member(*arguments, **options)
            if inspect.isasyncgen(result):
                return self._each(result)
            if isinstance(result, AsyncBeRayClient):
                return self._sharing(result)
            return self._run(result) if inspect.iscoroutine(result) else result

        return call

    def _run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine, context=contextvars.copy_context())  # the test's, not that of the first call

    def _sharing(self, client: AsyncBeRayClient) -> "BlockingClient":
        other = object.__new__(BlockingClient)
        other._client, other._runner, other._is_closed = client, self._runner, True
        return other

    def _each(self, items: Any) -> Iterator[Any]:
        async def next_or_end() -> tuple[bool, Any]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                has_more, item = self._run(next_or_end())
                if not has_more:
                    return
                yield item
        finally:
            self._run(items.aclose())

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._runner.run(self._client.close())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
