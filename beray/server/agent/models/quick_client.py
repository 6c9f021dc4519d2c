"""OpenAI's client without its walk over every request. Imports the client library: only for use once a task runs.

Before it sends a request the library looks at each value in it for another name or form that its API would need. A
conversation holds none, and the walk took a third of a step's processor time, more with every step
(benchmarks/agent.py). So a chat completion is posted as it is.
"""

from functools import cached_property
from typing import Any, Final

from openai import AsyncOpenAI, AsyncStream, NotGiven, Omit, not_given
from openai._base_client import make_request_options
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.types.chat import ChatCompletion, ChatCompletionChunk

_CHUNKS: Final = AsyncStream[ChatCompletionChunk]


class _Completions(AsyncCompletions):
    async def create(  # type: ignore[override]  # one signature instead of its three
        self,
        *,
        stream: bool = False,
        extra_headers: Any = None,
        extra_query: Any = None,
        extra_body: Any = None,
        timeout: Any = not_given,  # noqa: ASYNC109 - the library's name
        **params: Any,
    ) -> Any:
        """As the library's."""
        given = {name: value for name, value in params.items() if not isinstance(value, Omit | NotGiven)}
        options = make_request_options(
            extra_headers=extra_headers, extra_query=extra_query, timeout=timeout, security={"bearer_auth": True}
        )
        body = {"stream": stream, **given, **(extra_body or {})}
        return await self._post(
            "/chat/completions", body=body, options=options, cast_to=ChatCompletion, stream=stream, stream_cls=_CHUNKS
        )


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:
        """As the library's."""
        return _Completions(self._client)


class QuickOpenAI(AsyncOpenAI):
    """As the library's, for chat completions."""

    @cached_property
    def chat(self) -> AsyncChat:
        """As the library's."""
        return _Chat(self)
