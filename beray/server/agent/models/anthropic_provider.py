"""Builds the model library's object for Anthropic's own protocol. Needs the extra `anthropic`; see `building.py`."""

from anthropic import AsyncAnthropic
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.http_client import http_client, timeout_of

NO_KEY = "no-key"  # the client demands one; servers without keys ignore it


def build_anthropic_model(choice: ModelChoice, *, connections: ModelConnections) -> Model:
    """The library's model for `choice`, with the cache of prompts switched on: at this provider it has to be asked for.

    Tools and instructions stay the same over a run and the conversation only grows, so each request reads what the one
    before has written.
    """
    settings = AnthropicModelSettings(
        anthropic_cache_instructions=True,
        anthropic_cache_tool_definitions=True,
        anthropic_cache_messages=True,  # by block, which gateways know too
    )
    name = choice.name.partition(":")[2]
    provider = AnthropicProvider(anthropic_client=connections.client(choice, _client))
    profile = ModelProfile(supports_image_input=choice.sees_images)
    return AnthropicModel(name, provider=provider, profile=profile, settings=settings)


def _client(choice: ModelChoice) -> AsyncAnthropic:
    assert choice.base_url is not None, "only rules have no server"
    return AsyncAnthropic(
        base_url=choice.base_url,
        api_key=choice.api_key or NO_KEY,
        max_retries=0,  # retrying is the loop's
        timeout=timeout_of(choice),
        http_client=http_client(choice),
    )
