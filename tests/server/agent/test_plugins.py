"""Plug-ins: what can't work stops the start with the reason; what can is a tool like any other."""

import asyncio
import importlib
import sys
from pathlib import Path

import pytest

from beray.server.agent.plugins import load_plugins
from beray.server.agent.tools import TOOL_NAMES, plugin
from beray.server.agent.tools.catalogue import CatalogueError
from tests.server.agent.test_loop import choice
from tests.support.plugins import install
from tests.support.scripted_model import Reply, call, turns
from tests.support.waiting import until

HEAD = """
import asyncio, datetime, threading
from beray.tools import ToolContext, ToolError
"""


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder that packages are found in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name, module in sys.modules.items() if str(folder) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


_modules = iter(range(1_000_000))


def load(site: Path, source: str, tool: str = "look"):
    module = f"plugged_{next(_modules)}"
    install(site, "looking", module=module, source=HEAD + source, tools={tool: f"{module}:{tool}"})
    importlib.invalidate_caches()
    return load_plugins(TOOL_NAMES)


def described(signature: str, body: str = "return ''", *, args: str = "") -> str:
    return f'{signature}\n    """Look.\n\n    Args:\n        word: The word.\n{args}    """\n    {body}\n'


UNUSABLE = {
    "no module": ("raise ImportError('no such library')", "could not be loaded (ImportError: no such library)"),
    "exits": ("raise SystemExit(3)", "could not be loaded (SystemExit: 3)"),
    "no function": ("look = 5", "it is not a function"),
    "class": ("class look: pass", "it is not a function"),
    "generator": (described("def look(word: str) -> str:", "yield ''"), "it is not a function"),
    "no result": (described("def look(word: str):"), "its result must be annotated as str"),
    "other result": (described("def look(word: str) -> int:"), "its result must be annotated as str"),
    "no annotation": (described("def look(word) -> str:"), "parameter word has no annotation"),
    "unknown name": (described("def look(word: 'Word') -> str:"), "annotations can't be resolved (NameError"),
    "no JSON": (
        described("def look(word: threading.Lock().__class__) -> str:"),
        "no JSON can be given for its parameter",
    ),
    "many": (described("def look(*word: str) -> str:"), "can't be given by name"),
    "by place": (described("def look(word: str, /) -> str:"), "can't be given by name"),
    "no docstring": ("def look(word: str) -> str: return ''", "does not say under Args: what word means"),
    "half a docstring": (described("def look(word: str, more: int) -> str:"), "what more means"),
    "nothing said": ("def look() -> str: return ''", "no docstring"),
    "sync with context": (described("def look(context: ToolContext, word: str) -> str:"), "must be async"),
    "late context": (
        described("async def look(word: str, context: ToolContext) -> str:", args="        context: It.\n"),
        "only its first parameter can be a ToolContext",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_plugin_that_cannot_work_is_named_with_the_reason(site, case):
    source, reason = UNUSABLE[case]

    with pytest.raises(CatalogueError) as error:
        load(site, source)

    assert "The tool look (plugged_" in str(error.value)
    assert "of looking 1.0 cannot be used: " in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("shell", "a tool of that name is built in"),
        ("Look", "a name is a small letter, then"),
        ("x" * 49, "a name is a small letter, then"),
    ],
)
def test_a_plugin_needs_a_name_of_its_own(site, name, reason):
    with pytest.raises(CatalogueError, match=reason):
        load(site, "", tool=name)


def test_two_packages_cannot_have_a_tool_of_one_name(site):
    source = HEAD + described("def look(word: str) -> str:")
    install(site, "one-package", module="plugged_one", source=source, tools={"look": "plugged_one:look"})
    install(site, "two-package", module="plugged_two", source=source, tools={"look": "plugged_two:look"})

    with pytest.raises(CatalogueError, match=r"of one-package 1\.0 .* two-package 1\.0 has a tool of the same name"):
        load_plugins(TOOL_NAMES)


def test_where_none_are_installed_there_are_none():
    assert load_plugins(TOOL_NAMES) == ()


USABLE = '''
async def look(context: ToolContext, word: str, on: datetime.date, times: int = 1) -> str:
    """Look a word up. It is quick.

    Args:
        word: The word, such as bread.
        on: The day that counts.
        times (int): How often.
    """
    if word == "stone":
        raise ToolError("There is no stone. Ask for bread.")
    if word == "exit":
        raise SystemExit(1)
    if word == "number":
        return 5
    if word == "nothing":
        return ""
    if word == "secret":
        return await context.read_text("../secret")
    if word == "save":
        await context.write_text("a/found.txt", "found")
        await context.write_text("a/found.txt", "found it")
        return await context.read_text("a/found.txt") + " " + (await context.read_bytes("a/found.txt")).decode()
    if word == "slow":
        await asyncio.Event().wait()
    return f"{word} on {on:%d.%m.%Y} x{times} for {context.task_id} in {context.language}"
'''


async def play(bench, scripted, plugins, *calls):
    """What the model was told of each call."""
    server = scripted(turns(Reply(calls=list(calls)), Reply("done")))
    outcome = await bench.run("Look!", model=choice(server), tools=("look",), sources=plugins)
    assert outcome.result == "done"
    tools = server.requests[0]["tools"]
    return tools, [message["content"] for message in server.requests[1]["messages"] if message["role"] == "tool"]


async def test_a_plugin_is_a_tool_with_schema_result_and_errors(bench, scripted, site):
    plugins = load(site, USABLE)
    words = ["bread", "stone", "exit", "number", "nothing", "secret", "save"]

    tools, told = await play(bench, scripted, plugins, *(call("look", word=word, on="2026-05-01") for word in words))

    function = tools[0]["function"]
    assert (function["name"], function["description"]) == ("look", "Look a word up. It is quick.")
    assert function["parameters"]["properties"] == {
        "word": {"description": "The word, such as bread.", "type": "string"},
        "on": {"description": "The day that counts.", "format": "date", "type": "string"},
        "times": {"default": 1, "description": "How often.", "type": "integer"},
    }
    assert function["parameters"]["required"] == ["word", "on"]
    assert told[:2] == ["bread on 01.05.2026 x1 for 1 in en", "Error: There is no stone. Ask for bread."]
    assert told[2:4] == ["Error: The tool failed inside the server. Try another way."] * 2
    assert told[4] == "(the tool gave nothing back)"
    assert told[5].startswith("Error: The path ../secret is not valid")
    assert told[6] == "found it found it"
    assert [(event["path"], event["size"]) for event in await bench.events("file.changed")] == [("a/found.txt", 8)]
    is_ok = [event["ok"] for event in await bench.events("tool.finished")]
    assert is_ok == [True, False, False, False, True, False, True]


async def test_wrong_arguments_are_told_to_the_model(bench, scripted, site):
    _, told = await play(bench, scripted, load(site, USABLE), call("look", word="bread", on="yesterday"))

    assert "on" in told[0]
    assert "date" in told[0]


async def test_a_call_has_a_deadline(bench, scripted, site, monkeypatch):
    monkeypatch.setattr(plugin, "CALL_SECONDS", 0.05)

    _, told = await play(bench, scripted, load(site, USABLE), call("look", word="slow", on="2026-05-01"))

    assert told == ["Error: The tool took longer than 0.05 s and was given up. Ask it for less, or go another way."]


async def test_a_sync_function_runs_in_a_thread_and_its_long_result_is_cut(bench, scripted, site):
    source = described("def look(word: str) -> str:", "return threading.current_thread().name + word * 20_000 + 'end'")

    _, told = await play(bench, scripted, load(site, source), call("look", word="ab"))

    assert told[0].startswith("beray-tool")
    assert "bytes left out here; ask the tool for less to see them" in told[0]
    assert told[0].endswith("end")
    assert len(told[0]) < 17_000


async def test_a_context_serves_its_own_call_only(bench, scripted, site):
    """What a tool leaves running must not write into a later call, or after the run."""
    source = described(
        "async def look(context: ToolContext, word: str) -> str:",
        "globals().setdefault('kept', context)\n"
        "    if word == 'again':\n"
        "        await kept.write_text('late.txt', 'x')\n"
        "    return 'ok'",
    )

    _, told = await play(bench, scripted, load(site, source), call("look", word="a"), call("look", word="again"))

    assert told == ["ok", "Error: The call that this context was given to has ended."]
    assert not (bench.work_dir / "late.txt").exists()


async def test_a_stopped_run_ends_a_plugins_call(bench, scripted, site):
    source = described(
        "async def look(context: ToolContext, word: str) -> str:",
        "globals()['waits'] = True\n"
        "    try:\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        globals()['ended'] = True",
    )
    plugins = load(site, source)
    seen = plugins[0].function.__globals__
    running = asyncio.create_task(play(bench, scripted, plugins, call("look", word="a")))
    await until(lambda: seen.get("waits"), what="a call that waits")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert seen["ended"]
