"""Builds the model library's objects. Imports that library: only for use once a task runs."""

from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI
from pydantic_ai.models import Model
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.zai import ZaiModel
from pydantic_ai.providers import Provider
from pydantic_ai.providers.alibaba import AlibabaProvider
from pydantic_ai.providers.deepseek import DeepSeekProvider
from pydantic_ai.providers.moonshotai import MoonshotAIProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.vllm import VLLMProvider
from pydantic_ai.providers.zai import ZaiProvider

from beray.server.agent.models import ModelChoice

CONNECT_TIMEOUT_SECONDS = 10
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def build_provider_model(choice: ModelChoice) -> Model:
    """The library's model for `choice`, which is not rules."""
    assert choice.base_url is not None, "only rules have no server"
    prefix, _, name = choice.name.partition(":")
    client = _client(choice, choice.base_url)
    if prefix == "ollama":
        return OllamaModel(name, provider=OllamaProvider(openai_client=client))
    if prefix == "zai":
        return ZaiModel(name, provider=ZaiProvider(openai_client=client))
    return OpenAIChatModel(name, provider=_provider(prefix, client, is_own_url=choice.is_own_url))


async def close_provider_model(model: Model) -> None:
    """Close the model's connections."""
    if isinstance(model, OpenAIChatModel):
        await model.client.close()


def _provider(prefix: str, client: AsyncOpenAI, *, is_own_url: bool) -> Provider[AsyncOpenAI]:
    match prefix:
        case "deepseek":
            return DeepSeekProvider(openai_client=client)
        case "dashscope" | "alibaba":
            return AlibabaProvider(openai_client=client)
        case "moonshotai":
            return MoonshotAIProvider(openai_client=client)
        case "vllm":
            return VLLMProvider(openai_client=client)
        case _ if is_own_url:
            return OpenAICompatibleProvider("openai-compatible", openai_client=client)
        case _:
            return OpenAIProvider(openai_client=client)


def _client(choice: ModelChoice, base_url: str) -> AsyncOpenAI:
    """A client that never retries by itself (retrying is the loop's) and asks no proxy for loopback."""
    timeout = httpx2.Timeout(choice.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)
    is_loopback = urlsplit(base_url).hostname in LOOPBACK_HOSTS
    return AsyncOpenAI(
        base_url=base_url,
        api_key=choice.api_key or "no-key",  # the client demands one; servers without keys ignore it
        max_retries=0,
        timeout=timeout,
        http_client=httpx2.AsyncClient(trust_env=not is_loopback, timeout=timeout, follow_redirects=True),
    )
