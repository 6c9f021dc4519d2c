"""Which model is chosen, and what is said about it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from beray.server.agent.models.choice import PROVIDERS, choose_models, probe_models
from beray.server.settings import SettingError, Settings
from tests.support.scripted_model import ScriptedModel, turns


def choose(environ=None, *, servers=None, **settings):
    """Choose with these settings, this environment, and these servers nearby: base URL to names of models."""
    asked = []

    def probe(base_url, timeout_seconds):
        asked.append(base_url)
        return (servers or {}).get(base_url)

    models = choose_models(Settings(**settings), environ or {}, own_port=4000, probe=probe)
    choice = models.default
    return SimpleNamespace(models=models, choice=choice, asked=asked, zh=choice.notice("zh"), en=choice.notice("en"))


@pytest.fixture
def without_anthropic(monkeypatch):
    """As where the extra is not installed."""
    monkeypatch.setattr("beray.server.agent.models.choice.find_spec", lambda name: None)


@pytest.mark.parametrize("name", ["rules", "beray:rules"])
def test_rules_can_be_chosen_though_a_key_is_there(name):
    made = choose({"OPENAI_API_KEY": "sk-1"}, model=name)

    assert (made.choice.name, made.choice.kind) == ("beray:rules", "rules")
    assert "not an AI model" in made.en
    assert "不是 AI 模型" in made.zh


def test_nothing_set_and_nothing_found_is_rules_and_says_how_to_change_it():
    made = choose()

    assert made.choice.kind == "rules"
    assert "OPENAI_API_KEY" in made.en
    assert "BERAY_MODEL=ollama:" in made.zh


def test_the_named_model_wins_over_keys():
    made = choose({"OPENAI_API_KEY": "sk-1", "DEEPSEEK_API_KEY": "d"}, model="deepseek:deepseek-chat")

    assert made.choice.name == "deepseek:deepseek-chat"
    assert made.choice.api_key == "d"
    assert made.choice.base_url == "https://api.deepseek.com"
    assert made.asked == []


def test_any_compatible_server_is_reached_by_url_and_key():
    made = choose(model="openai:qwen:8b", model_base_url="http://127.0.0.1:9000", model_api_key="k")

    assert (made.choice.name, made.choice.base_url, made.choice.api_key) == (
        "openai:qwen:8b",
        "http://127.0.0.1:9000/v1",
        "k",
    )
    assert (made.choice.is_own_url, made.choice.moved_by) == (True, "BERAY_MODEL_BASE_URL")


def test_a_providers_key_is_not_sent_to_another_address():
    made = choose({"OPENAI_API_KEY": "sk-1"}, model="openai:x", model_base_url="http://gateway.example/v1")

    assert made.choice.api_key is None
    assert made.choice.key_names == ("BERAY_MODEL_API_KEY",)


def test_a_server_that_may_need_no_key_knows_where_one_would_be_set():
    made = choose(model="vllm:x", models=("ollama:y",))

    assert made.choice.key_names == ("VLLM_API_KEY", "BERAY_MODEL_API_KEY")
    assert made.models.further[0].key_names == ("OLLAMA_API_KEY",)


@pytest.mark.parametrize(
    ("environ", "settings", "named"),
    [
        ({}, {"model": "gpt-5"}, "provider:name"),
        ({}, {"model": "openai:"}, "provider:name"),
        ({}, {"model": "gemini:x"}, "Providers:"),
        ({}, {"model": "openai:gpt-5"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": " "}, {"model": "openai:gpt-5"}, "OPENAI_API_KEY"),
        ({}, {"model": "anthropic:claude"}, "ANTHROPIC_API_KEY or BERAY_MODEL_API_KEY"),
        ({}, {"model": "openai:x", "model_base_url": "localhost:9"}, "BERAY_MODEL_BASE_URL"),
        ({}, {"model": "openai:x", "model_base_url": "http://:9"}, "BERAY_MODEL_BASE_URL"),
        ({}, {"model": "openai:x", "model_base_url": "http://127.0.0.1:4000"}, "this server itself"),
        ({}, {"model_base_url": "http://127.0.0.1:9"}, "BERAY_MODEL_BASE_URL"),
        ({}, {"model_api_key": "k"}, "BERAY_MODEL_API_KEY"),
        ({"OLLAMA_BASE_URL": "nonsense"}, {}, "OLLAMA_BASE_URL"),
        ({}, {"models": ("gpt-5",)}, "BERAY_MODELS='gpt-5'"),
        ({}, {"models": ("ollama:a", "openai:gpt-5")}, "BERAY_MODELS='openai:gpt-5' .* Set OPENAI_API_KEY\\.$"),
        ({}, {"model_fallback": ("gemini:x",)}, "BERAY_MODEL_FALLBACK='gemini:x'"),
        ({}, {"model_fallback": ("rules",)}, "BERAY_MODEL_FALLBACK cannot hold rules"),
        ({"LLAMACPP_BASE_URL": "http://localhost:4000"}, {"models": ("llamacpp:a",)}, "Set LLAMACPP_BASE_URL"),
    ],
)
def test_a_broken_setting_fails_and_never_falls_back(environ, settings, named):
    with pytest.raises(SettingError, match=named):
        choose(environ, servers={"http://127.0.0.1:11434/v1": ["llama"]}, **settings)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("OPENAI_API_KEY", "openai:gpt-5"),
        ("DEEPSEEK_API_KEY", "deepseek:deepseek-chat"),
        ("DASHSCOPE_API_KEY", "dashscope:qwen-plus"),
        ("MOONSHOTAI_API_KEY", "moonshotai:kimi-k2.6"),
        ("ZAI_API_KEY", "zai:glm-4.7"),
        ("ANTHROPIC_API_KEY", "anthropic:claude-sonnet-5-5"),
        ("ZHIPUAI_API_KEY", "zhipu:glm-4.7"),
        ("ZHIPU_API_KEY", "zhipu:glm-4.7"),
    ],
)
def test_one_key_is_used_and_said_to_cost_money(key, name):
    made = choose({key: "k"})

    assert (made.choice.name, made.choice.kind, made.choice.api_key) == (name, "model", "k")
    assert (made.choice.is_own_url, made.choice.moved_by) == (False, None)
    assert key in made.en
    assert "costs money" in made.en
    assert "产生费用" in made.zh


def test_of_several_keys_the_first_in_the_order_is_used_and_the_others_are_named():
    made = choose({"ZAI_API_KEY": "z", "DASHSCOPE_API_KEY": "d", "MOONSHOTAI_API_KEY": "m"})

    assert made.choice.name == "dashscope:qwen-plus"
    assert "MOONSHOTAI_API_KEY, ZAI_API_KEY" in made.en


def test_openai_comes_before_anthropic_and_anthropic_before_the_others():
    keys = {"ZAI_API_KEY": "z", "ANTHROPIC_API_KEY": "a", "DEEPSEEK_API_KEY": "d"}

    assert choose(keys).choice.name == "anthropic:claude-sonnet-5-5"
    assert choose({**keys, "OPENAI_API_KEY": "o"}).choice.name == "openai:gpt-5"


@pytest.mark.usefixtures("without_anthropic")
def test_without_its_package_a_key_of_anthropic_is_not_used_and_what_to_install_is_said():
    made = choose({"ANTHROPIC_API_KEY": "a"})

    assert made.choice.kind == "rules"
    assert "ANTHROPIC_API_KEY" in made.en
    assert "pip install 'beray[anthropic]'" in made.en
    assert choose({"ANTHROPIC_API_KEY": "a", "ZAI_API_KEY": "z"}).choice.name == "zai:glm-4.7"


@pytest.mark.usefixtures("without_anthropic")
def test_without_its_package_a_model_of_anthropic_stops_the_start():
    with pytest.raises(SettingError, match=r"pip install 'beray\[anthropic\]'"):
        choose({"ANTHROPIC_API_KEY": "a"}, model="anthropic:claude-sonnet-5-5")


SECRETS = [
    "https://user:s3cret@gw.example/v1",
    "http://s3cret@gw.example",
    "user:s3cret@gw/v1",
    "http://u:s/3cret@gw/v1",
    "https://gw.example/v1?key=s3cret",
    "https://gw.example#s3cret",
    "gw.example?key=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize(
    ("name", "key"), [("BERAY_MODEL_BASE_URL", "BERAY_MODEL_API_KEY"), ("OLLAMA_BASE_URL", "OLLAMA_API_KEY")]
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(name, key, url):
    """It would be shown at start and in the log."""
    is_own = name == "BERAY_MODEL_BASE_URL"
    environ, settings = ({}, {"model_base_url": url}) if is_own else ({name: url}, {})

    with pytest.raises(SettingError, match=name) as error:
        choose(environ, model="ollama:x", **settings)

    assert "3cret" not in str(error.value)
    assert "***" in str(error.value) or key in str(error.value)


@pytest.mark.parametrize("url", ["http://gateway.example", "http://gateway.example/v1/", "http://gateway.example/v1"])
def test_anthropics_address_can_be_moved_and_its_path_is_not_doubled(url):
    """The client adds `/v1/messages` by itself."""
    made = choose({"ANTHROPIC_API_KEY": "a", "ANTHROPIC_BASE_URL": url})

    assert (made.choice.base_url, made.choice.is_own_url) == ("http://gateway.example", True)
    assert made.choice.moved_by == "ANTHROPIC_BASE_URL"


@pytest.mark.parametrize("name", ["ollama:m", "llamacpp:m", "vllm:m"])
def test_what_a_server_of_ones_own_costs_is_not_known(name):
    """The model's name may be one that is sold elsewhere."""
    assert choose(model=name).choice.is_own_url


def test_llama_cpp_is_found_under_its_name():
    made = choose(servers={"http://127.0.0.1:8080/v1": ["qwen3"]})

    assert (made.choice.name, made.choice.base_url) == ("llamacpp:qwen3", "http://127.0.0.1:8080/v1")


# what a task may ask for, and what takes over


def test_further_models_are_offered_once_beside_the_default():
    keys = {"OPENAI_API_KEY": "o", "DEEPSEEK_API_KEY": "d"}
    made = choose(keys, models=("deepseek:chat", "openai:gpt-5", "deepseek:chat", "rules"))

    assert [choice.name for choice in made.models.offered] == ["openai:gpt-5", "deepseek:chat", "beray:rules"]
    assert [choice.api_key for choice in made.models.offered] == ["o", "d", None]
    assert made.models.find_offered(None) is made.choice
    assert made.models.find_offered("deepseek:other") is None
    assert "deepseek:chat" in made.en


def test_a_fallback_takes_over_but_is_not_offered():
    made = choose({"OPENAI_API_KEY": "o"}, model_fallback=("ollama:qwen3", "vllm:m"))

    assert [choice.name for choice in made.models.fallback] == ["ollama:qwen3", "vllm:m"]
    assert made.models.find_offered("ollama:qwen3") is None
    assert made.models.find("ollama:qwen3") is made.models.fallback[0]
    assert "ollama:qwen3, vllm:m" in made.en


def test_address_and_key_of_the_model_count_for_models_of_its_provider_only():
    """One gateway may offer several; another provider's server is never sent its key."""
    made = choose(
        {"DEEPSEEK_API_KEY": "d"},
        model="openai:a",
        model_base_url="http://gateway.example/v1",
        model_api_key="k",
        models=("openai:b", "deepseek:chat"),
    )

    reached = [(choice.base_url, choice.api_key) for choice in made.models.further]
    assert reached == [("http://gateway.example/v1", "k"), ("https://api.deepseek.com", "d")]


def test_the_models_can_be_set_while_rules_are_the_default():
    made = choose({"DEEPSEEK_API_KEY": "d"}, model="rules", models=("deepseek:chat",))

    assert [choice.name for choice in made.models.offered] == ["beray:rules", "deepseek:chat"]


def test_every_provider_that_needs_a_key_says_where_it_is_looked_up():
    assert all(provider.key_names for provider in PROVIDERS.values() if provider.needs_key)


def test_a_local_server_with_one_model_is_used():
    made = choose(servers={"http://127.0.0.1:11434/v1": ["qwen3:8b"]})

    assert (made.choice.name, made.choice.base_url) == ("ollama:qwen3:8b", "http://127.0.0.1:11434/v1")
    assert "http://127.0.0.1:11434/v1" in made.choice.operator_notice("en")


def test_of_several_local_models_none_is_picked():
    made = choose(servers={"http://127.0.0.1:11434/v1": ["a", "b"]})

    assert made.choice.kind == "rules"
    assert "BERAY_MODEL=ollama:a" in made.en
    assert "ollama:b" in made.en


def test_only_loopback_is_searched_and_not_our_own_port():
    settings = Settings()
    asked = []
    choose_models(settings, {}, own_port=8080, probe=lambda url, seconds: asked.append(url))

    assert asked == ["http://127.0.0.1:11434/v1", "http://127.0.0.1:8000/v1"]


def test_the_search_can_be_switched_off():
    assert choose(model_probe=False).asked == []


def test_a_server_the_environment_names_is_asked_instead():
    made = choose(
        {"OLLAMA_BASE_URL": "http://gpu.example:11434"},
        servers={"http://gpu.example:11434/v1": ["m"]},
        model_probe=False,
    )

    assert made.asked == ["http://gpu.example:11434/v1"]
    assert made.choice.base_url == "http://gpu.example:11434/v1"


def test_a_named_server_that_is_silent_is_said_to_be():
    made = choose({"VLLM_BASE_URL": "http://gpu.example:8000/v1"})

    assert made.choice.kind == "rules"
    assert "VLLM_BASE_URL" in made.en
    assert "http://gpu.example:8000/v1" in made.choice.operator_notice("en")


@pytest.mark.parametrize(
    ("models", "settings"),
    [
        (["m"], {}),
        (["m", "n"], {}),
        ([], {}),
        ([], {"model": "ollama:m"}),
        ([], {"model": "openai:m", "model_base_url": "http://gpu.example:9"}),
    ],
)
def test_where_a_server_is_only_the_operator_is_told(models, settings):
    """The other notice is for anybody: /api/v1/info asks for no login."""
    environ = {"OLLAMA_BASE_URL": "http://gpu.example:9"}
    made = choose(environ, servers={"http://gpu.example:9/v1": models}, **settings)

    for language, shown in (("en", made.en), ("zh", made.zh)):
        assert "gpu.example" not in shown
        assert "http://gpu.example:9/v1" in made.choice.operator_notice(language)


def test_the_key_is_never_shown():
    assert "sk-secret" not in repr(choose({"OPENAI_API_KEY": "sk-secret"}).choice)


def test_the_probe_lists_the_models_of_a_server():
    with ScriptedModel(turns(), models=["a", "b"]) as server:
        assert probe_models(server.base_url, 5) == ["a", "b"]
        assert probe_models(server.base_url.removesuffix("/v1"), 5) is None


def test_the_probe_finds_nothing_where_nothing_listens():
    assert probe_models("http://127.0.0.1:9/v1", 0.2) is None


def test_choosing_does_not_load_the_model_library():
    """It costs a second or two and 50 MB: only once a task runs."""
    program = (
        "import sys, json, beray.server.agent.models.choice, beray.server.agent.run, beray.server.agent.loop,"
        " beray.server.agent.tools, beray.server.agent.models.checking, beray.server.agent.models.routes,"
        " beray.server.agent.tools.catalogue, beray.server.app; print(json.dumps(sorted(sys.modules)))"
    )

    modules = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)

    assert "beray.server.agent.loop" in modules
    assert not {"pydantic_ai", "openai", "anthropic", "httpx2"} & set(modules)
