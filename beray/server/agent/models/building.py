"""Builds what `choice.py` has chosen, for the model library: only for use once a task runs."""

from typing import TYPE_CHECKING

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.messages import Language

if TYPE_CHECKING:
    from pydantic_ai.models import Model


def build_model(
    choice: ModelChoice, language: Language, *, connections: ModelConnections, cache_key: str = "beray"
) -> "Model":
    """The model library's object for `choice`.

    Rules mode is spared the provider's client, which is half of what there is to load.

    Imports the model library, which takes a second or two the first time: call it in a thread.

    Args:
        choice: From `choose_models`.
        language: Language in which rules mode speaks; a model takes the user's.
        connections: By which it is asked; the model works as long as they are not closed.
        cache_key: The same for requests that begin alike.
    """
    if choice.kind == "rules":
        from beray.server.agent.models.rules_model import build_rules_model

        return build_rules_model(language)
    if choice.provider == "anthropic":
        from beray.server.agent.models.anthropic_provider import build_anthropic_model

        return build_anthropic_model(choice, connections=connections)
    from beray.server.agent.models.providers import build_provider_model

    return build_provider_model(choice, connections=connections, cache_key=cache_key)
