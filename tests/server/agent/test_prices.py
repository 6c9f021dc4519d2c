"""What answers cost, and of which day the prices are."""

import json
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from beray.server.agent.models.choice import RULES, ModelChoice
from beray.server.agent.models.prices import LIBRARY, LIBRARY_AS_OF, Price, PriceTable, load_prices, require_prices
from beray.server.settings import SettingError

ROOT = Path(__file__).parents[3]


def write(tmp_path, content) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def model(name, **changes):
    return ModelChoice(name, "model", **{"base_url": "https://api.openai.com/v1", **changes})


def test_the_operators_prices_are_read(tmp_path):
    table = load_prices(
        write(
            tmp_path,
            {
                "as_of": "2026-11-20",
                "models": {
                    "openai:gpt-5": {"input": 1, "output": 2, "cached_input": 0.5},
                    "anthropic:*": {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25},
                    "openai:*": {"input": 3, "output": 4},
                    "ollama:*": {"input": 0, "output": 0},
                },
            },
        )
    )

    assert table.find("openai:gpt-5") == Price(1, 2, 0.5)
    assert table.find("anthropic:any") == Price(1, 2, 0.1, 1.25)
    assert table.find("openai:other") == Price(3, 4, 3)
    assert table.find("ollama:qwen3") == Price(0, 0, 0)
    assert table.find("deepseek:x") is None
    assert (table.info()["own_models"], table.info()["own_as_of"]) == (4, "2026-11-20")


def test_price_is_of_a_million_tokens():
    assert Price(2, 10, 0.5).of(
        input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=100_000
    ) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)


@pytest.mark.parametrize(
    ("price", "dollars"), [(Price(2, 10, 0.5, 4), 0.3 * 2 + 0.3 * 4), (Price(2, 10, 0.5), 0.6 * 2)]
)
def test_what_is_put_into_the_cache_may_have_a_price_of_its_own(price, dollars):
    """It is part of the input, as is what was cached before."""
    cost = price.of(
        input_tokens=1_000_000, cached_input_tokens=400_000, cache_write_tokens=300_000, output_tokens=100_000
    )

    assert cost == pytest.approx(dollars + 0.4 * 0.5 + 0.1 * 10)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "Expecting"),
        ("[]", "must be an object"),
        ({"models": []}, "must be an object"),
        ({"models": {}, "more": 1}, "must be an object"),
        ({"as_of": "yesterday", "models": {}}, "as_of"),
        ({"models": {"gpt-5": {"input": 1, "output": 1}}}, "provider:name"),
        ({"models": {"openai:x": 3}}, "openai:x"),
        ({"models": {"openai:x": {"input": 1}}}, "needs"),
        ({"models": {"openai:x": {"input": 1, "output": 1, "cache_write": None}}}, "0 or more"),
        ({"models": {"openai:x": {"input": -1, "output": 1}}}, "0 or more"),
        ({"models": {"openai:x": {"input": True, "output": 1}}}, "0 or more"),
        ('{"models": {"openai:x": {"input": NaN, "output": 1}}}', "0 or more"),
        ({"models": {"openai:x": {"input": 1, "output": 1, "image": 2}}}, "openai:x"),
    ],
)
def test_a_wrong_table_stops_the_start_and_says_where(tmp_path, content, named):
    with pytest.raises(SettingError, match="BERAY_PRICES") as error:
        load_prices(write(tmp_path, content))

    assert named in str(error.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingError, match="No such file"):
        load_prices(tmp_path / "none.json")


def test_which_models_have_a_price():
    table = PriceTable({"ollama:*": Price(0, 0, 0)})

    assert table.is_known(model("openai:gpt-5"))
    assert table.is_known(model("ollama:any", base_url="http://127.0.0.1:11434/v1"))
    assert table.is_known(ModelChoice(RULES, "rules"))
    assert not table.is_known(model("openai:no-such-model-of-theirs"))
    assert not table.is_known(model("openai:gpt-5", base_url="http://gateway/v1", is_own_url=True))


def test_a_limit_on_money_needs_a_price():
    unknown = model("openai:mine", is_own_url=True)

    with pytest.raises(SettingError, match=r"BERAY_MAX_COST_USD.*openai:mine.*BERAY_PRICES"):
        require_prices(PriceTable(), [model("openai:gpt-5"), unknown], setting="BERAY_MAX_COST_USD")
    moved = model("openai:gpt-5", is_own_url=True, moved_by="BERAY_MODEL_BASE_URL")
    with pytest.raises(SettingError, match=r"openai:gpt-5 costs at the server that BERAY_MODEL_BASE_URL names"):
        require_prices(PriceTable(), [moved], setting="BERAY_MAX_COST_USD")
    require_prices(PriceTable({"openai:mine": Price(1, 1, 1)}), [unknown], setting="BERAY_MAX_COST_USD")


def test_the_day_of_the_built_in_prices_is_known():
    """The set of libraries is frozen to a day; the newest version until then is of no later day."""
    frozen = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["exclude-newer"]

    assert LIBRARY_AS_OF[version(LIBRARY)] <= frozen[:10]
    assert PriceTable().info()["as_of"] == LIBRARY_AS_OF[version(LIBRARY)]
