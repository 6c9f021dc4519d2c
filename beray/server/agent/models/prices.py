"""What a model's answer costs: by the operator's own table, else by the table of the library `genai-prices`.

The operator's table is a JSON file (`BERAY_PRICES`), in US dollars for a million tokens:

    {"as_of": "2026-11-20", "models": {"openai:gpt-5": {"input": 1.25, "cached_input": 0.125, "output": 10},
                                       "ollama:*": {"input": 0, "output": 0}}}

A name may end in `*`; the longest that fits counts. The library's prices hold for the providers' own servers only: the
same name elsewhere may cost anything. What neither table knows costs "unknown", never 0.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypedDict

from beray.server.agent.models.choice import ModelChoice
from beray.server.settings import SettingError

LIBRARY: Final = "genai-prices"
LIBRARY_AS_OF: Final = {"0.2.3": "2026-11-17"}
"""Versions of the library, and the day on which each was the newest; a test keeps the installed one in here."""

MOST_FILE_BYTES: Final = 1 << 20
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens.

    Attributes:
        cached_input: For the part of the input that the provider had cached.
        cache_write: For the part of the input that it put into its cache; None: as for the rest.
    """

    input: float
    output: float
    cached_input: float
    cache_write: float | None = None

    def of(
        self, *, input_tokens: int, cached_input_tokens: int, output_tokens: int, cache_write_tokens: int = 0
    ) -> float:
        """What so many tokens cost, in US dollars; the input counts all of it."""
        fresh = max(input_tokens - cached_input_tokens - cache_write_tokens, 0)
        written = self.input if self.cache_write is None else self.cache_write
        dollars = fresh * self.input + cached_input_tokens * self.cached_input + cache_write_tokens * written
        return (dollars + output_tokens * self.output) / MILLION


class PricesInfo(TypedDict):
    """Which tables count, and of which day they are; null: not known."""

    source: str
    as_of: str | None
    own_models: int
    own_as_of: str | None


@dataclass(frozen=True)
class PriceTable:
    """The operator's prices, over the library's."""

    own: Mapping[str, Price] = field(default_factory=dict)
    as_of: str | None = None

    def find(self, model: str) -> Price | None:
        """The operator's price of a model, as `provider:name`."""
        if model in self.own:
            return self.own[model]
        fitting = [name for name in self.own if name.endswith("*") and model.startswith(name[:-1])]
        return self.own[max(fitting, key=len)] if fitting else None

    def is_free(self, model: ModelChoice) -> bool:
        """Whether the model costs nothing, whatever is asked of it."""
        price = self.find(model.name)
        return model.kind == "rules" or (price is not None and not any(vars(price).values()))

    def estimate(self, model: ModelChoice, *, input_tokens: int, output_tokens: int) -> float | None:
        """What so many tokens cost, in US dollars, if none was cached; None: not known. May import the library."""
        own = self.find(model.name)
        if own is not None:
            return own.of(input_tokens=input_tokens, cached_input_tokens=0, output_tokens=output_tokens)
        if model.kind == "rules":
            return 0.0
        return None if model.is_own_url else _estimate(model, input_tokens, output_tokens)

    def is_known(self, model: ModelChoice) -> bool:
        """Whether the model's answers have a price. Imports the library's table, some 0.2 s: call it in a thread."""
        if model.kind == "rules" or self.find(model.name) is not None:
            return True
        return not model.is_own_url and _is_in_library(model)

    def info(self) -> PricesInfo:
        """What /api/v1/info tells."""
        installed = _library_version()
        source = LIBRARY if installed is None else f"{LIBRARY} {installed}"
        return {
            "source": source,
            "as_of": LIBRARY_AS_OF.get(installed or ""),
            "own_models": len(self.own),
            "own_as_of": self.as_of,
        }


def load_prices(path: Path | None) -> PriceTable:
    """The operator's table; none: an empty one.

    Raises:
        SettingError: The file can't be used; says where in it.
    """
    if path is None:
        return PriceTable()
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
        if len(content) > MOST_FILE_BYTES:
            raise ValueError("it is larger than 1 MiB")
        return _parse(json.loads(content))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingError(
            f"BERAY_PRICES={str(path)!r} cannot be used: {why}. Write a JSON file such as"
            ' {"as_of": "2026-11-20", "models": {"openai:gpt-5": {"input": 1.25, "output": 10}}},'
            " in US dollars for a million tokens."
        ) from error


def require_prices(table: PriceTable, models: list[ModelChoice], *, setting: str) -> None:
    """A limit on money counts nothing that has no price.

    Raises:
        SettingError: One of the models has none.
    """
    for model in models:
        if not table.is_known(model):
            moved = f" at the server that {model.moved_by} names, whose prices may differ," if model.moved_by else ""
            raise SettingError(
                f"{setting} is set, but what the model {model.name} costs{moved} is not known, so money could be"
                " spent unseen. Add its price to the file BERAY_PRICES (0 for a model that costs nothing),"
                f" or unset {setting}."
            )


def _parse(content: Any) -> PriceTable:
    if (
        not isinstance(content, dict)
        or set(content) - {"as_of", "models"}
        or not isinstance(content.get("models"), dict)
    ):
        raise ValueError('it must be an object of "as_of" and "models"')
    as_of = content.get("as_of")
    if as_of is not None and not (isinstance(as_of, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", as_of)):
        raise ValueError('"as_of" must be a date such as "2026-11-20"')
    return PriceTable({name: _price(name, entry) for name, entry in content["models"].items()}, as_of)


def _price(name: str, entry: Any) -> Price:
    if ":" not in name:
        raise ValueError(f"{name!r} is no model: write provider:name, or provider:* for all of a provider's")
    if not isinstance(entry, dict) or set(entry) - {"input", "output", "cached_input", "cache_write"}:
        raise ValueError(
            f'the price of {name!r} must be an object of "input", "output", "cached_input" and "cache_write"'
        )
    if not {"input", "output"} <= set(entry):
        raise ValueError(f'the price of {name!r} needs "input" and "output"')
    for part, dollars in entry.items():
        is_number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
        if not is_number or not math.isfinite(dollars) or dollars < 0:
            raise ValueError(f'"{part}" of {name!r} must be a number of dollars, 0 or more')
    fresh = float(entry["input"])
    written = entry.get("cache_write")
    return Price(
        input=fresh,
        output=float(entry["output"]),
        cached_input=float(entry.get("cached_input", fresh)),
        cache_write=None if written is None else float(written),
    )


def _library_version() -> str | None:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return None


def _estimate(model: ModelChoice, input_tokens: int, output_tokens: int) -> float | None:
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    name = model.name.partition(":")[2]
    try:
        return float(calc_price(usage, name, provider_api_url=model.base_url).total_price)
    except LookupError:  # as the model library does with an answer
        pass
    try:
        return float(calc_price(usage, name, provider_id=model.provider).total_price)
    except (LookupError, ValueError):
        return None


def _is_in_library(model: ModelChoice) -> bool:
    from genai_prices.data_snapshot import get_snapshot

    try:
        get_snapshot().find_provider_model(model.name.partition(":")[2], None, None, model.base_url)
    except LookupError:
        return False
    return True
