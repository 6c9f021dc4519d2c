"""Which model does the work: chosen once, at start, in a fixed order, and always said aloud.

1. `BERAY_MODEL` wins. Set but unusable, it stops the start; nothing else is tried in its place.
2. Else a provider's key in the environment. Of several the first in `KEY_ORDER`, and the notice names the others.
3. Else a server that `OLLAMA_BASE_URL` or `VLLM_BASE_URL` names, or one that answers on loopback, if it offers
   exactly one model. Of several none is picked: the notice lists them and asks. Nothing outside loopback is searched.
4. Else fixed rules, `beray:rules`, which are no AI model and say so.

This module is imported at start, so it knows nothing of the model library: `building.py` builds what was chosen.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from beray.protocol.types import ModelKind
from beray.server.messages import Language, text
from beray.server.settings import SettingError, Settings

RULES: Final = "beray:rules"

Probe = Callable[[str, float], Sequence[str] | None]
"""`probe(base_url, timeout_seconds)`: names of the models an OpenAI-compatible server offers; None: no such server."""

LOOPBACK_TIMEOUT_SECONDS = 0.2
NAMED_TIMEOUT_SECONDS = 2.0  # a server the environment names may be on another machine
MOST_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Provider:
    """A service that speaks OpenAI's chat protocol.

    Attributes:
        base_url: Where it is; None where there is no usual place.
        base_url_name: Environment variable that moves it.
        key_names: Environment variables its key is looked up in, first wins.
        default_model: Taken when only a key was found.
        needs_key: Whether it refuses to work without a key.
    """

    base_url: str
    base_url_name: str | None = None
    key_names: tuple[str, ...] = ()
    default_model: str | None = None
    needs_key: bool = True


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_BASE_URL", ("OPENAI_API_KEY",), "gpt-5"),
    "deepseek": Provider("https://api.deepseek.com", None, ("DEEPSEEK_API_KEY",), "deepseek-chat"),
    "dashscope": Provider(
        "https://dashscope.aliyuncs.com/compatible-mode/v1", None, ("DASHSCOPE_API_KEY",), "qwen-plus"
    ),
    "alibaba": Provider(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        None,
        ("ALIBABA_API_KEY", "DASHSCOPE_API_KEY"),
        "qwen-plus",
    ),
    "moonshotai": Provider(
        "https://api.moonshot.ai/v1", "MOONSHOTAI_BASE_URL", ("MOONSHOTAI_API_KEY", "MOONSHOT_API_KEY"), "kimi-k2.6"
    ),
    "zai": Provider("https://api.z.ai/api/paas/v4", None, ("ZAI_API_KEY",), "glm-4.7"),
    "ollama": Provider("http://127.0.0.1:11434/v1", "OLLAMA_BASE_URL", ("OLLAMA_API_KEY",), needs_key=False),
    "vllm": Provider("http://127.0.0.1:8000/v1", "VLLM_BASE_URL", ("VLLM_API_KEY",), needs_key=False),
}

KEY_ORDER: Final = ("openai", "deepseek", "dashscope", "moonshotai", "zai")
"""Whose key is taken first when the environment holds several."""

LOOPBACK: Final = (("ollama", 11434), ("openai", 8080), ("vllm", 8000))
"""Where local model servers listen by default; llama.cpp (8080) is reached as any OpenAI-compatible server."""

NamedNotice = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class ModelChoice:
    """The model that works, how to reach it, and what to tell people about it.

    Attributes:
        name: As `provider:model`; `beray:rules` for fixed rules.
        kind: Whether it is an AI model at all.
        base_url: Where its server is; None for rules.
        is_own_url: The server is not the provider's usual one, so what it costs is not known.
        timeout_seconds: How long its stream may stay silent.
        notices: Keys of the catalogue with their fields, for `notice`.
    """

    name: str
    kind: ModelKind
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    is_own_url: bool = False
    timeout_seconds: int = 120
    notices: tuple[NamedNotice, ...] = ()

    def notice(self, language: Language) -> str:
        """Which model works, why, and how to change it, in sentences for people."""
        return " ".join(text(key, language, **dict(fields)) for key, fields in self.notices)


def choose_model(
    settings: Settings, environ: Mapping[str, str], *, own_port: int | None = None, probe: Probe | None = None
) -> ModelChoice:
    """Choose the model; see the order at the head of this file.

    May block for some 600 ms while it looks for local servers: call it in a thread.

    Args:
        settings: `model`, `model_base_url`, `model_api_key` and `model_probe` decide.
        environ: Where providers' own variables (`OPENAI_API_KEY`, ...) are looked up.
        own_port: The port this server listens on, where it can't find a model; default the setting's.
        probe: Asks a server for its models; default `probe_models`.

    Raises:
        SettingError: `BERAY_MODEL` or what belongs to it can't be used.
    """
    port = settings.port if own_port is None else own_port
    if settings.model:
        return _named(settings, environ, settings.model, port)
    if settings.model_base_url or settings.model_api_key:
        name = "BERAY_MODEL_BASE_URL" if settings.model_base_url else "BERAY_MODEL_API_KEY"
        raise SettingError(f"{name} is set, but no model is. Set BERAY_MODEL=openai:<name> too, or unset {name}.")
    by_key = _by_key(settings, environ)
    if by_key is not None:
        return by_key
    return _local(settings, environ, port, probe or probe_models)


def _named(settings: Settings, environ: Mapping[str, str], wanted: str, own_port: int) -> ModelChoice:
    """The model `BERAY_MODEL` names, or a SettingError."""
    if wanted in {"rules", RULES}:
        return ModelChoice(RULES, "rules", notices=(_say("model_rules_chosen"),))
    prefix, _, model = wanted.partition(":")
    provider = PROVIDERS.get(prefix)
    if prefix == "anthropic":
        raise SettingError(
            f"BERAY_MODEL={wanted!r} cannot be used: Anthropic's own protocol is not in this installation. "
            "Reach the model through an OpenAI-compatible gateway: BERAY_MODEL=openai:<name> with BERAY_MODEL_BASE_URL."
        )
    if provider is None or not model:
        raise SettingError(
            f"BERAY_MODEL={wanted!r} cannot be used: write provider:name, for example openai:gpt-5 or ollama:qwen3, "
            f"or rules. Providers: {', '.join(PROVIDERS)}."
        )
    if settings.model_base_url:
        # A provider's key from the environment is meant for that provider, never for another address.
        base_url, key = _checked_url("BERAY_MODEL_BASE_URL", settings.model_base_url), settings.model_api_key
    else:
        base_url, key = _base_url(provider, environ), settings.model_api_key or _key(provider, environ)
        if provider.needs_key and not key:
            raise SettingError(
                f"BERAY_MODEL={wanted!r} cannot be used: it needs a key. "
                f"Set {provider.key_names[0]} or BERAY_MODEL_API_KEY."
            )
    if _is_own(base_url, own_port):
        raise SettingError(
            f"BERAY_MODEL={wanted!r} cannot be used: {base_url} is this server itself. "
            "Set BERAY_MODEL_BASE_URL to the model's server, or BERAY_PORT to another port."
        )
    return _reached(settings, provider, wanted, base_url, key, _say("model_chosen", model=wanted, url=base_url))


def _by_key(settings: Settings, environ: Mapping[str, str]) -> ModelChoice | None:
    """The default model of the first provider whose key the environment holds."""
    found = [name for name in KEY_ORDER if _key(PROVIDERS[name], environ)]
    if not found:
        return None
    provider = PROVIDERS[found[0]]
    key_name = _key_name(provider, environ)
    wanted = f"{found[0]}:{provider.default_model}"
    notices = [_say("model_from_key", model=wanted, key=key_name)]
    others = [_key_name(PROVIDERS[name], environ) for name in found[1:]]
    if others:
        notices.append(_say("model_other_keys", keys=", ".join(others), order=" > ".join(KEY_ORDER)))
    notices += _anthropic_notice(environ)
    base_url = _base_url(provider, environ)
    return _reached(settings, provider, wanted, base_url, _key(provider, environ), *notices)


def _local(settings: Settings, environ: Mapping[str, str], own_port: int, probe: Probe) -> ModelChoice:
    """A model server nearby that offers exactly one model, or rules with the reason."""
    notices: list[NamedNotice] = []
    for name, base_url, timeout_seconds, is_named in _candidates(settings, environ, own_port):
        models = probe(base_url, timeout_seconds)
        if models is None or not models:
            if is_named:
                notices.append(_say("model_server_silent", url=base_url))
            continue
        if len(models) > 1:
            shown = ", ".join(f"{name}:{model}" for model in models[:20])
            notices.append(_say("model_several", url=base_url, models=shown, first=f"{name}:{models[0]}"))
            continue
        wanted = f"{name}:{models[0]}"
        provider = PROVIDERS[name]
        key = _key(provider, environ) if is_named else None
        return _reached(
            settings, provider, wanted, base_url, key, _say("model_found_local", model=wanted, url=base_url)
        )
    notices += _anthropic_notice(environ)
    return ModelChoice(RULES, "rules", notices=(_say("model_rules"), *notices))


def _candidates(settings: Settings, environ: Mapping[str, str], own_port: int) -> list[tuple[str, str, float, bool]]:
    """Servers worth asking: provider, base URL, timeout, and whether the environment names it."""
    named = [
        (name, _base_url(PROVIDERS[name], environ), NAMED_TIMEOUT_SECONDS, True)
        for name in ("ollama", "vllm")
        if environ.get(PROVIDERS[name].base_url_name or "")
    ]
    if named or not settings.model_probe:
        return named
    return [
        (name, f"http://127.0.0.1:{port}/v1", LOOPBACK_TIMEOUT_SECONDS, False)
        for name, port in LOOPBACK
        if port != own_port
    ]


def _reached(
    settings: Settings, provider: Provider, name: str, base_url: str, key: str | None, /, *notices: NamedNotice
) -> ModelChoice:
    return ModelChoice(
        name,
        "model",
        base_url=base_url,
        api_key=key,
        is_own_url=base_url != provider.base_url,
        timeout_seconds=settings.model_timeout_seconds,
        notices=notices,
    )


def _say(key: str, /, **fields: str) -> NamedNotice:
    return key, tuple(fields.items())


def _anthropic_notice(environ: Mapping[str, str]) -> list[NamedNotice]:
    return [_say("model_anthropic_ignored")] if environ.get("ANTHROPIC_API_KEY", "").strip() else []


def _key(provider: Provider, environ: Mapping[str, str]) -> str | None:
    return next((environ[name].strip() for name in provider.key_names if environ.get(name, "").strip()), None)


def _key_name(provider: Provider, environ: Mapping[str, str]) -> str:
    return next(name for name in provider.key_names if environ.get(name, "").strip())


def _base_url(provider: Provider, environ: Mapping[str, str]) -> str:
    name = provider.base_url_name
    raw = environ.get(name, "").strip() if name else ""
    return _checked_url(name or "", raw) if raw else provider.base_url


def _checked_url(name: str, raw: str) -> str:
    """`raw` as a base URL, with `/v1` where it names only a host."""
    try:
        parts = urlsplit(raw)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SettingError(f"{name}={raw!r} cannot be used: write a URL such as http://127.0.0.1:11434/v1.")
    return raw.rstrip("/") + ("/v1" if parts.path in {"", "/"} else "")


def _is_own(base_url: str, own_port: int) -> bool:
    parts = urlsplit(base_url)
    return parts.port == own_port and parts.hostname in {"127.0.0.1", "localhost", "::1"}


def probe_models(base_url: str, timeout_seconds: float) -> Sequence[str] | None:
    """Names of the models the server at `base_url` offers (GET /models); None if none answers as such. Blocks."""
    parts = urlsplit(base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    try:
        connection.request("GET", f"{parts.path}/models", headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            return None
        return _model_names(_read_until(response, deadline))
    except (OSError, http.client.HTTPException, ValueError):
        return None  # not a model server, or none at all: both mean there is nothing to use here
    finally:
        connection.close()


def _read_until(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, unless it is too long or comes too slowly (ValueError)."""
    body = bytearray()
    while chunk := response.read1(64 * 1024):
        body += chunk
        if len(body) > MOST_PROBE_BYTES or time.monotonic() > deadline:
            raise ValueError("too long")
    return bytes(body)


def _model_names(body: bytes) -> list[str] | None:
    answer = json.loads(body)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
