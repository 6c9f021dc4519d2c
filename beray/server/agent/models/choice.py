"""Which models do the work: chosen once, at start, in a fixed order, and always said aloud.

The default model, which works where a task asks for no other:

1. `BERAY_MODEL` wins. Set but unusable, it stops the start; nothing else is tried in its place.
2. Else a provider's key in the environment. Of several the first in `KEY_ORDER`, and the notice names the others.
3. Else a server that `OLLAMA_BASE_URL`, `LLAMACPP_BASE_URL` or `VLLM_BASE_URL` names, or one that answers on loopback,
   if it offers exactly one model. Of several none is picked: the notice lists them and asks. Nothing outside loopback
   is searched.
4. Else fixed rules, `beray:rules`, which are no AI model and say so.

Beside it `BERAY_MODELS` names those a task may ask for, and `BERAY_MODEL_FALLBACK` those that take over, in this order,
when a run's model has failed for good. Each must be usable too, or the start stops.

This module is imported at start, so it knows nothing of the model library: `building.py` builds what was chosen.
"""

import http.client
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from beray.protocol.types import ModelKind
from beray.server.agent.models.vision import sees_images
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
    """A service that offers models, by OpenAI's chat protocol unless it is `anthropic`.

    Attributes:
        base_url: Where it is.
        base_url_name: Environment variable that moves it.
        key_names: Environment variables its key is looked up in, first wins.
        default_model: Taken when only a key was found.
        needs_key: Whether it refuses to work without a key.
        extra: What has to be installed for it beside the server; the package's name and the extra's.
        path: Of its API, where a URL names only a host; the library adds Anthropic's by itself.
    """

    base_url: str
    base_url_name: str | None = None
    key_names: tuple[str, ...] = ()
    default_model: str | None = None
    needs_key: bool = True
    extra: str | None = None
    path: str = "/v1"

    @property
    def is_installed(self) -> bool:
        """Whether what it needs is there; asks for the package without loading it."""
        return self.extra is None or find_spec(self.extra) is not None


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_BASE_URL", ("OPENAI_API_KEY",), "gpt-5"),
    "anthropic": Provider(
        "https://api.anthropic.com",
        "ANTHROPIC_BASE_URL",
        ("ANTHROPIC_API_KEY",),
        "claude-sonnet-5-5",
        extra="anthropic",
        path="",
    ),
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
    "zhipu": Provider("https://open.bigmodel.cn/api/paas/v4", None, ("ZHIPUAI_API_KEY", "ZHIPU_API_KEY"), "glm-4.7"),
    "ollama": Provider("http://127.0.0.1:11434/v1", "OLLAMA_BASE_URL", ("OLLAMA_API_KEY",), needs_key=False),
    "llamacpp": Provider("http://127.0.0.1:8080/v1", "LLAMACPP_BASE_URL", needs_key=False),
    "vllm": Provider("http://127.0.0.1:8000/v1", "VLLM_BASE_URL", ("VLLM_API_KEY",), needs_key=False),
}

KEY_ORDER: Final = ("openai", "anthropic", "deepseek", "dashscope", "moonshotai", "zai", "zhipu")
"""Whose key is taken first when the environment holds several."""


def key_variables() -> list[dict[str, str]]:
    """How a first model is set: variables for a key, in `KEY_ORDER`, and the model that each brings."""
    providers = [(name, PROVIDERS[name]) for name in KEY_ORDER]
    return [
        {"variable": provider.key_names[0], "model": f"{name}:{provider.default_model}"} for name, provider in providers
    ]


LOOPBACK: Final = (("ollama", 11434), ("llamacpp", 8080), ("vllm", 8000))
"""Where local model servers listen by default."""

NamedNotice = tuple[str, tuple[tuple[str, str], ...]]

ADDRESS: Final = "model_address"
"""The notice that says where the server is of which the one before it speaks. Addresses are the operator's to know:
they may be of a private network."""


@dataclass(frozen=True)
class ModelChoice:
    """The model that works, how to reach it, and what to tell people about it.

    Attributes:
        name: As `provider:model`; `beray:rules` for fixed rules.
        kind: Whether it is an AI model at all.
        base_url: Where its server is; None for rules.
        key_names: What its key is set by, where one was looked for.
        moved_by: The variable that names its server, where that is not the provider's usual one.
        is_own_url: The server is not a provider's usual one (somebody's own, or a gateway): nobody knows what it costs.
        timeout_seconds: How long its stream may stay silent.
        sees_images: It can be shown pictures.
        notices: Keys of the catalogue with their fields, for `notice`.
    """

    name: str
    kind: ModelKind
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    key_names: tuple[str, ...] = ()
    moved_by: str | None = None
    is_own_url: bool = False
    timeout_seconds: int = 120
    sees_images: bool = False
    notices: tuple[NamedNotice, ...] = ()

    def notice(self, language: Language) -> str:
        """Which model works, why, and how to change it, in sentences for people: for anybody, so without addresses."""
        return _told([notice for notice in self.notices if notice[0] != ADDRESS], language)

    def operator_notice(self, language: Language) -> str:
        """The same with the addresses of the servers that it speaks of."""
        return _told(self.notices, language)

    @property
    def provider(self) -> str:
        """The name's first part, a key of `PROVIDERS`; `beray` for rules."""
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Models:
    """The models of this server.

    Attributes:
        default: Works where a task asks for no other.
        further: What a task may ask for beside it.
        fallback: Take over, in this order, when a run's model has failed for good.
    """

    default: ModelChoice
    further: tuple[ModelChoice, ...] = ()
    fallback: tuple[ModelChoice, ...] = ()

    @property
    def offered(self) -> tuple[ModelChoice, ...]:
        """What a task may ask for."""
        return (self.default, *self.further)

    def find_offered(self, name: str | None) -> ModelChoice | None:
        """The model a task asks for by `name`, the default for None; None: it is not offered."""
        return _find(self.offered, name)

    def find(self, name: str | None) -> ModelChoice | None:
        """The model `name`, also one that only takes over; the default for None; None: there is no such here."""
        return _find((*self.offered, *self.fallback), name)


def _told(notices: Sequence[NamedNotice], language: Language) -> str:
    return " ".join(text(key, language, **dict(fields)) for key, fields in notices)


def _find(choices: Sequence[ModelChoice], name: str | None) -> ModelChoice | None:
    if name is None:
        return choices[0]
    return next((choice for choice in choices if choice.name == name), None)


def choose_models(
    settings: Settings, environ: Mapping[str, str], *, own_port: int | None = None, probe: Probe | None = None
) -> Models:
    """Choose the models; see the order at the head of this file.

    May block for some 600 ms while it looks for local servers: call it in a thread.

    Args:
        settings: Those that begin with `model` decide.
        environ: Where providers' own variables (`OPENAI_API_KEY`, ...) are looked up.
        own_port: The port this server listens on, where it can't find a model; default the setting's.
        probe: Asks a server for its models; default `probe_models`.

    Raises:
        SettingError: A model that is set, or what belongs to it, can't be used.
    """
    around = _Surroundings(settings, environ, settings.port if own_port is None else own_port)
    default = _choose_default(around, probe or probe_models)
    further = _listed(around, "BERAY_MODELS", [name for name in settings.models if _full_name(name) != default.name])
    fallback = _listed(around, "BERAY_MODEL_FALLBACK", settings.model_fallback)
    if any(choice.kind == "rules" for choice in fallback):
        raise SettingError(
            "BERAY_MODEL_FALLBACK cannot hold rules, which understand no goal that a model was asked for. "
            "Name models as provider:name, or unset it."
        )
    notices = default.notices
    if further:
        notices += (_say("model_further", models=", ".join(choice.name for choice in further)),)
    if fallback:
        notices += (_say("model_fallbacks", models=", ".join(choice.name for choice in fallback)),)
    return Models(replace(default, notices=notices), further, fallback)


@dataclass(frozen=True)
class _Surroundings:
    """What is looked at while models are chosen; both may hold keys."""

    settings: Settings = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    own_port: int


def _choose_default(around: _Surroundings, probe: Probe) -> ModelChoice:
    settings = around.settings
    if settings.model:
        return _named(around, "BERAY_MODEL", settings.model)
    if settings.model_base_url or settings.model_api_key:
        name = "BERAY_MODEL_BASE_URL" if settings.model_base_url else "BERAY_MODEL_API_KEY"
        raise SettingError(f"{name} is set, but no model is. Set BERAY_MODEL=openai:<name> too, or unset {name}.")
    return _by_key(around) or _local(around, probe)


def _listed(around: _Surroundings, setting: str, names: Sequence[str]) -> tuple[ModelChoice, ...]:
    """The models a setting lists, each once."""
    return tuple(_named(around, setting, name) for name in dict.fromkeys(map(_full_name, names)))


def _full_name(name: str) -> str:
    return RULES if name == "rules" else name


def _named(around: _Surroundings, setting: str, wanted: str) -> ModelChoice:
    """The model that `setting` names, or a SettingError."""
    if _full_name(wanted) == RULES:
        return ModelChoice(RULES, "rules", notices=(_say("model_rules_chosen"),))
    prefix, _, model = wanted.partition(":")
    provider = PROVIDERS.get(prefix)
    if provider is None or not model:
        raise SettingError(
            f"{setting}={wanted!r} cannot be used: write provider:name, for example openai:gpt-5 or ollama:qwen3, "
            f"or rules. Providers: {', '.join(PROVIDERS)}."
        )
    if not provider.is_installed:
        raise SettingError(f"{setting}={wanted!r} cannot be used: it needs a package more: {_install(provider)}")
    own_url, own_key = _own_server(around.settings, prefix)
    if own_url:
        # A provider's key from the environment is meant for that provider, never for another address.
        base_url, key = _checked_url("BERAY_MODEL_BASE_URL", own_url, provider), own_key
        key_names: tuple[str, ...] = ("BERAY_MODEL_API_KEY",)
    else:
        key_names = (*provider.key_names, *(["BERAY_MODEL_API_KEY"] if setting == "BERAY_MODEL" else []))
        base_url, key = _base_url(provider, around.environ), own_key or _key(provider, around.environ)
        if provider.needs_key and not key:
            raise SettingError(f"{setting}={wanted!r} cannot be used: it needs a key. Set {' or '.join(key_names)}.")
    if _is_own(base_url, around.own_port):
        url_name = "BERAY_MODEL_BASE_URL" if own_url or setting == "BERAY_MODEL" else provider.base_url_name
        raise SettingError(
            f"{setting}={wanted!r} cannot be used: {base_url} is this server itself. "
            f"Set {url_name} to the model's server, or BERAY_PORT to another port."
        )
    notices = _say("model_chosen", model=wanted), _say(ADDRESS, url=base_url)
    return replace(_reached(around.settings, wanted, base_url, key, *notices), key_names=key_names)


def _own_server(settings: Settings, prefix: str) -> tuple[str | None, str | None]:
    """BERAY_MODEL_BASE_URL and BERAY_MODEL_API_KEY, which are for models of the provider that BERAY_MODEL names."""
    if (settings.model or "").partition(":")[0] != prefix:
        return None, None
    return settings.model_base_url, settings.model_api_key


def _by_key(around: _Surroundings) -> ModelChoice | None:
    """The default model of the first provider whose key the environment holds."""
    environ = around.environ
    found = [name for name in KEY_ORDER if _key(PROVIDERS[name], environ) and PROVIDERS[name].is_installed]
    if not found:
        return None
    provider = PROVIDERS[found[0]]
    key_name = _key_name(provider, environ)
    wanted = f"{found[0]}:{provider.default_model}"
    notices = [_say("model_from_key", model=wanted, key=key_name)]
    others = [_key_name(PROVIDERS[name], environ) for name in found[1:]]
    if others:
        notices.append(_say("model_other_keys", keys=", ".join(others), order=" > ".join(KEY_ORDER)))
    notices += _unusable_keys(environ)
    return _reached(around.settings, wanted, _base_url(provider, environ), _key(provider, environ), *notices)


def _local(around: _Surroundings, probe: Probe) -> ModelChoice:
    """A model server nearby that offers exactly one model, or rules with the reason."""
    notices: list[NamedNotice] = []
    for name, base_url, timeout_seconds, is_named in _candidates(around):
        models = probe(base_url, timeout_seconds)
        address = _say(ADDRESS, url=base_url)
        if models is None or not models:
            if is_named:
                notices += [_say("model_server_silent", name=PROVIDERS[name].base_url_name or ""), address]
            continue
        if len(models) > 1:
            shown = ", ".join(f"{name}:{model}" for model in models[:20])
            notices += [_say("model_several", models=shown, first=f"{name}:{models[0]}"), address]
            continue
        wanted = f"{name}:{models[0]}"
        key = _key(PROVIDERS[name], around.environ) if is_named else None
        return _reached(around.settings, wanted, base_url, key, _say("model_found_local", model=wanted), address)
    notices += _unusable_keys(around.environ)
    return ModelChoice(RULES, "rules", notices=(_say("model_rules"), *notices))


def _candidates(around: _Surroundings) -> list[tuple[str, str, float, bool]]:
    """Servers worth asking: provider, base URL, timeout, and whether the environment names it."""
    named = [
        (name, _base_url(PROVIDERS[name], around.environ), NAMED_TIMEOUT_SECONDS, True)
        for name, _ in LOOPBACK
        if around.environ.get(PROVIDERS[name].base_url_name or "")
    ]
    if named or not around.settings.model_probe:
        return named
    return [
        (name, f"http://127.0.0.1:{port}/v1", LOOPBACK_TIMEOUT_SECONDS, False)
        for name, port in LOOPBACK
        if port != around.own_port
    ]


def _reached(settings: Settings, name: str, base_url: str, key: str | None, /, *notices: NamedNotice) -> ModelChoice:
    prefix = name.partition(":")[0]
    provider = PROVIDERS[prefix]
    url_name = "BERAY_MODEL_BASE_URL" if _own_server(settings, prefix)[0] else provider.base_url_name
    return ModelChoice(
        name,
        "model",
        base_url=base_url,
        api_key=key,
        moved_by=None if base_url == provider.base_url else url_name,
        is_own_url=base_url != provider.base_url or not provider.needs_key,
        timeout_seconds=settings.model_timeout_seconds,
        sees_images=sees_images(name, settings.model_vision),
        notices=notices,
    )


def _say(key: str, /, **fields: str) -> NamedNotice:
    return key, tuple(fields.items())


def _unusable_keys(environ: Mapping[str, str]) -> list[NamedNotice]:
    """What is said of keys that were found and can't be used, for want of a package."""
    lacking = [provider for provider in PROVIDERS.values() if _key(provider, environ) and not provider.is_installed]
    return [_say("model_key_unusable", key=_key_name(each, environ), install=_install(each)) for each in lacking]


def _install(provider: Provider) -> str:
    return f"pip install 'beray[{provider.extra}]'"


def _key(provider: Provider, environ: Mapping[str, str]) -> str | None:
    return next((environ[name].strip() for name in provider.key_names if environ.get(name, "").strip()), None)


def _key_name(provider: Provider, environ: Mapping[str, str]) -> str:
    return next(name for name in provider.key_names if environ.get(name, "").strip())


def _base_url(provider: Provider, environ: Mapping[str, str]) -> str:
    name = provider.base_url_name
    raw = environ.get(name, "").strip() if name else ""
    return _checked_url(name or "", raw, provider) if raw else provider.base_url


def _checked_url(name: str, raw: str, provider: Provider) -> str:
    """`raw` as a base URL, with the provider's path where it names only a host."""
    if "@" in re.split("[/?#]", raw.split("://")[-1])[0]:  # a URL is shown at start: it must hold no secret
        raise SettingError(
            f"{name} cannot be used: it holds a user or a password before the host's name. "
            f"Leave them out, and put the key into {' or '.join(_key_settings(name, provider))}."
        )
    try:
        parts = urlsplit(raw)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        shown = "***" if set("@?#") & set(raw) else repr(raw)
        raise SettingError(f"{name}={shown} cannot be used: write a URL such as http://127.0.0.1:11434/v1.")
    if "?" in raw or "#" in raw:  # a path is put at its end; and a key may stand there, so it is not shown
        raise SettingError(
            f"{name} cannot be used: it holds a query or a fragment (`?` or `#`). "
            f"Leave that out, and put a key into {' or '.join(_key_settings(name, provider))}."
        )
    url = raw.rstrip("/")
    if not provider.path:
        return url.removesuffix("/v1")
    return url + (provider.path if parts.path in {"", "/"} else "")


def _key_settings(url_name: str, provider: Provider) -> tuple[str, ...]:
    """Where the key belongs of a server whose URL `url_name` sets."""
    if url_name == "BERAY_MODEL_BASE_URL":
        return ("BERAY_MODEL_API_KEY",)
    return (*provider.key_names, "BERAY_MODEL_API_KEY")


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
