"""OpenAI's client without its walk over every request. Imports the client library: only for use once a task runs.

Before it sends a request the library looks at each value in it for another name or form that its API would need. A
conversation holds none, and the walk took a third of a step's processor time, more with every step
(benchmarks/agent.py). What stands in `extra_body` is sent as it is, so the conversation and the tools go there.
"""

from functools import cached_property
from typing import Any

from openai import AsyncOpenAI, Omit, omit
from openai.resources.chat import AsyncChat, AsyncCompletions


class _Completions(AsyncCompletions):
    async def create(self, *, messages: Any, tools: Any = omit, extra_body: Any = None, **params: Any) -> Any:
        """As the library's."""
        as_it_is = {"messages": messages, **({} if isinstance(tools, Omit) else {"tools": tools}), **(extra_body or {})}
        return await super().create(messages=[], extra_body=as_it_is, **params)


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
