"""Builds the model library's objects for OpenAI's protocol. Imports that library: only for use once a task runs."""

from openai import AsyncOpenAI
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.models.zai import ZaiModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers import Provider
from pydantic_ai.providers.alibaba import AlibabaProvider
from pydantic_ai.providers.deepseek import DeepSeekProvider
from pydantic_ai.providers.moonshotai import MoonshotAIProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.vllm import VLLMProvider
from pydantic_ai.providers.zai import ZaiProvider

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.http_client import http_client, timeout_of
from beray.server.agent.models.quick_client import QuickOpenAI


def build_provider_model(choice: ModelChoice, *, connections: ModelConnections, cache_key: str) -> Model:
    """The library's model for `choice`, which speaks OpenAI's protocol.

    Args:
        choice: Not rules.
        connections: By which it is asked.
        cache_key: The same for requests that begin alike; OpenAI sends them to the machine that has cached that.
    """
    prefix, _, name = choice.name.partition(":")
    client = connections.client(choice, _client)
    # where it is False the library puts a note in the place of a tool's picture: a fallback model may see less
    profile = ModelProfile(supports_image_input=choice.sees_images)
    if prefix == "ollama":
        return _Ollama(name, provider=OllamaProvider(openai_client=client), profile=profile)
    if prefix in {"zai", "zhipu"}:
        return _Zai(name, provider=ZaiProvider(openai_client=client), profile=profile)
    # Others cache by themselves what requests have in common, and may refuse a field they do not know.
    takes_key = prefix == "openai" and not choice.is_own_url
    settings = OpenAIChatModelSettings(openai_prompt_cache_key=cache_key) if takes_key else None
    provider = _provider(prefix, client, is_own_url=choice.is_own_url)
    return _Chat(name, provider=provider, profile=profile, settings=settings)


class _SameTools(Model):
    """Fits the tools to the model once: they are the same in every request, and it took a tenth of a step's time."""

    _fitted: tuple[ModelRequestParameters, ModelRequestParameters] | None = None

    def customize_request_parameters(self, model_request_parameters: ModelRequestParameters) -> ModelRequestParameters:
        """As the library's."""
        if self._fitted is None or self._fitted[0] != model_request_parameters:
            self._fitted = model_request_parameters, super().customize_request_parameters(model_request_parameters)
        return self._fitted[1]


class _Chat(_SameTools, OpenAIChatModel):
    pass


class _Ollama(_SameTools, OllamaModel):
    pass


class _Zai(_SameTools, ZaiModel):
    pass


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
        case _ if is_own_url or prefix == "llamacpp":
            return OpenAICompatibleProvider("openai-compatible", openai_client=client)
        case _:
            return OpenAIProvider(openai_client=client)


def _client(choice: ModelChoice) -> AsyncOpenAI:
    """A client that never retries by itself (retrying is the loop's)."""
    assert choice.base_url is not None, "only rules have no server"
    return QuickOpenAI(
        base_url=choice.base_url,
        api_key=choice.api_key or "no-key",  # the client demands one; servers without keys ignore it
        max_retries=0,
        timeout=timeout_of(choice),
        http_client=http_client(choice),
    )
